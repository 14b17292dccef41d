"""What a run tells while it works: plain values, so that it may be told from another process or machine."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    text: str


@dataclass(frozen=True)
class Joined:
    """worker: the process, by its ID among those at work."""

    worker: str


@dataclass(frozen=True)
class Started:
    """images: how many each cell has to make, by id."""

    images: Mapping[str, int]


@dataclass(frozen=True)
class Left:
    """images: how many some cells lack by now, by id, whoever made the others. workers: who make them."""

    images: Mapping[str, int]
    workers: int


@dataclass(frozen=True)
class WarmedUp:
    """seconds: of one image."""

    cell: str
    seconds: float


@dataclass(frozen=True)
class Made:
    """seconds: of all these images, with their text encoded and decoded."""

    cell: str
    label: str
    images: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    cell: str
    label: str
    why: str


Event = Said | Joined | Started | Left | WarmedUp | Made | Failed

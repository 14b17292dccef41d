"""Events that a run reports while it works: plain values that can be sent from another process or machine."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """Text to show."""

    text: str


@dataclass(frozen=True)
class Joined:
    """A worker joined. worker: its id among those at work."""

    worker: str


@dataclass(frozen=True)
class Remaining:
    """What is left to make, including what other processes make.

    images: number of missing images by cell id: of all cells at the start, later perhaps of some only.
    workers: number of processes that make them.
    """

    images: Mapping[str, int]
    workers: int


@dataclass(frozen=True)
class WarmedUp:
    """A cell's warm-up is done. seconds: of one image."""

    cell: str
    seconds: float


@dataclass(frozen=True)
class Made:
    """A batch is done. seconds: of all these images, including text encoding and decoding."""

    cell: str
    label: str
    images: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A cell failed."""

    cell: str
    label: str
    why: str


Event = Message | Joined | Remaining | WarmedUp | Made | Failed

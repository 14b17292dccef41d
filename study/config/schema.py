"""The plain keys of conf/config.yaml and the sweep's own, with their limits."""

import re
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.errors import shown

Seed = Annotated[int, Field(ge=0, lt=2**63)]
COMMANDS = ("list", "show", "merge", "compare", "rescore")  # keys that ask for something else than a study
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def listed(value: Any) -> Any:
    """One name is a list of one."""
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    """name: folder under `results`; null makes it from the choices. n: the first n prompts of the set.
    Raising n, or adding seeds, goes on where the study stands. cost: what a method has to be cheaper in than
    step reduction at the same quality; gains and plots are by it. cell_timeout: seconds that one call of a
    cell may take, its warm-up or a batch; more is its failure. time_limit: seconds after which a worker
    begins no further batch, but for the dense one beside what it has made. traces: images of a cell, at most,
    that are traced and whose FLOPs torch counts, beside the closed form that all have; 0 for none. retry:
    "failed" makes nothing but what has failed. sibling: names of models, rivals of the methods with few steps
    of their own. versus: label of a cell that all others are compared with, in pairs; null for the natural
    pairs. The last five ask for other things than a study: COMMANDS."""

    prompts: str
    name: str | None = None
    results: Annotated[str, Field(min_length=1), AfterValidator(expanduser)] = "results"
    n: Annotated[int, Field(ge=1, le=10_000_000)] = 24
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    batch: Annotated[int, Field(ge=1, le=10_000)] = 4
    cost: Literal["time", "flops"] = "time"
    cell_timeout: Annotated[float, Field(gt=0, le=1e9)] | None = None
    time_limit: Annotated[float, Field(gt=0, le=1e9)] | None = None
    traces: Annotated[int, Field(ge=0, le=4)] = 4
    retry: Literal["failed"] | None = None
    sibling: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    versus: str | None = None
    plan: bool = False
    rescore: str | None = None
    list: str | None = None
    show: str | None = None
    merge: tuple[str, ...] | None = None
    compare: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.name is not None and not FOLDER.fullmatch(self.name):
            raise ValueError(
                f"name={shown(self.name)}: must be letters, digits, '.', '_' and '-', at most 100 of them"
            )
        if any(len(part.encode()) > 255 for part in Path(self.results).parts) or len(self.results) > 4000:
            raise ValueError(f"results={shown(self.results)}: is longer than a file system takes")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={shown(list(self.seeds))}: a seed is there twice")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Suite:
    """strict: refuse to start when a metric cannot give a number. margin:
    by score, `clip_score` or `clip_score[emoji]`, the loss to the dense images that is accepted; of a
    likeness to them, psnr, ssim, lpips, the worst value that is."""

    strict: bool = False
    margin: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Sweep:
    """grid: config keys to lists of values; several keys make the product. points: cells written out, config
    keys to values each; a grid beside them multiplies them. curve: step reduction to compare with, as
    fractions of the model's steps, or numbers of steps from 2 on; null for none. solver, schedule: of the
    curve; see `methods.Steps`."""

    grid: dict[str, list[Any]] = Field(default_factory=dict)
    points: tuple[dict[str, Any], ...] = ()
    curve: tuple[Annotated[float, Field(gt=0)], ...] | None = (0.75, 0.5, 0.35, 0.25)
    solver: Literal["euler", "heun", "dpm++2m", "unipc"] = "euler"
    schedule: Literal["own", "held"] = "own"

    def __post_init__(self):
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key}=[]: must be a list of at least one value")
        for point in self.curve or ():
            if point > 1 and point != int(point):
                raise ValueError(f"curve={point}: must be a fraction up to 1 or a whole number of steps")
            if (self.curve or ()).count(point) > 1:
                raise ValueError(f"curve: {point:g} is there twice")

    @property
    def of_models(self) -> bool:
        """Whether cells differ in their model or in a key of it."""
        return any(key.split(".")[0] == "model" for keys in (self.grid, *self.points) for key in keys)

    def curve_steps(self, steps: int) -> list[int]:
        """Numbers of steps, falling, without those that reduce nothing: 0.5 of 30 is 15."""
        points = (int(p) if p > 1 else max(1, round(p * steps)) for p in self.curve or ())
        return sorted({p for p in points if p < steps}, reverse=True)

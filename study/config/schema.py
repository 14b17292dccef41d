"""Types and limits of the plain keys of conf/config.yaml and of the sweep."""

import re
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.errors import as_text

Seed = Annotated[int, Field(ge=0, lt=2**63)]
COMMANDS = ("list", "show", "merge", "compare", "rescore")  # keys that run another command than a study
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def listed(value: Any) -> Any:
    """Convert a single name to a list."""
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    """The plain keys of conf/config.yaml.

    name: folder under `results`; null derives it from the chosen options.
    n: use the first n prompts of the set. Raising n or adding seeds continues an existing study.
    cost: the cost in which a method must beat step reduction at equal quality; used for gains and plots.
    cell_timeout: limit in seconds for one call of a cell (warm-up or batch); exceeding it is a failure.
    time_limit: seconds after which a worker starts no further batch, except the dense one that completes a
        comparison.
    traces: number of images per cell, at most, that are traced and whose FLOPs torch counts, in addition to
        the closed form computed for every image; 0 for none.
    retry: "failed" runs only the cells that have failed.
    sibling: model names; few-step models that compete with the methods.
    versus: label of the cell that all others are compared with, in pairs; null for the default pairs.

    The last five keys, COMMANDS, ask for something other than running a study."""

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
                f"name={as_text(self.name)}: must be letters, digits, '.', '_' and '-', at most 100 of them, "
                "and begin with a letter or digit"
            )
        if any(len(part.encode()) > 255 for part in Path(self.results).parts) or len(self.results) > 4000:
            raise ValueError(f"results={as_text(self.results)}: is longer than a file system allows")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={as_text(list(self.seeds))}: a seed is listed twice; leave one out")
        if len(set(self.sibling)) < len(self.sibling):
            raise ValueError(f"sibling={as_text(list(self.sibling))}: a model is listed twice; leave one out")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Suite:
    """Evaluation settings.

    strict: refuse to start if a metric cannot be computed.
    margin: by score, `clip_score` or `clip_score[emoji]`, the accepted loss relative to the dense images; for
        a similarity to them (psnr, ssim, lpips) the worst accepted value.
    """

    strict: bool = False
    margin: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Sweep:
    """Settings of the sweep.

    grid: config keys to lists of values; several keys form their product.
    points: explicit cells, config keys to values each; a grid multiplies them.
    curve: the step-reduction baseline, as fractions of the model's steps or as numbers of steps from 2; null
        for none.
    solver, schedule: of the curve; see `methods.Steps`.
    """

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
                raise ValueError(f"curve: {point:g} is listed twice; leave one out")

    @property
    def of_models(self) -> bool:
        """True if cells differ in their model or in one of its keys."""
        return any(key.split(".")[0] == "model" for keys in (self.grid, *self.points) for key in keys)

    def curve_steps(self, steps: int) -> list[int]:
        """Return the numbers of steps in descending order, only those below `steps`: 0.5 of 30 is 15."""
        points = (int(p) if p > 1 else max(1, round(p * steps)) for p in self.curve or ())
        return sorted({p for p in points if p < steps}, reverse=True)

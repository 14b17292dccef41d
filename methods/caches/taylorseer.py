"""TaylorSeer: forecast the outputs of attention and MLP modules (Liu et al. 2025, arXiv:2503.06923)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.forecast import forecast_modules
from fovea.methods.forecast import Differences
from fovea.methods.schedules import Phase, refreshes


def taylor_series(order: int, warmup: int, phase: Phase) -> Differences:
    """Return the empty Taylor series of one output; see `TaylorSeer`."""
    return Differences(order, since=warmup - 1 if phase == "paper" else 0)


@dataclass(frozen=True, config={"extra": "forbid"})
class TaylorSeer(Cache):
    """Every `interval` steps all modules run; in between each module's output is a Taylor series. Same as
    `Forecast` with basis=taylor at the modules.

    order: order of the series; 0 is reuse. Derivatives are replaced by finite differences, so order 1 is
        exact for a line, but order 2 is not for a parabola.
    warmup: number of first steps that all run.
    phase: the first step to run after the warm-up is `interval` steps after it in the authors' code
        ("paper"), two after it in diffusers. The authors form no differences before the last warm-up step, so
        that orders 2 and 3 start one and two full steps later than in diffusers.
    modules: "attention" lets the MLPs run at every step, which is the default in diffusers.
    """

    interval: Annotated[int, Field(ge=1)] = 5
    order: Annotated[int, Field(ge=0, le=3)] = 1
    warmup: Annotated[int, Field(ge=1)] = 3
    phase: Phase = "diffusers"
    modules: Literal["all", "attention"] = "all"

    off: ClassVar = {"interval": 1}

    def runs(self, i: int) -> bool:
        """True if step i is evaluated."""
        return refreshes(i, self.interval, self.warmup, self.phase)

    def saves(self, steps):
        return not all(map(self.runs, range(steps)))

    def start(self, flow, steps):
        return forecast_modules(
            flow, self.runs, lambda: taylor_series(self.order, self.warmup, self.phase), self.modules
        )

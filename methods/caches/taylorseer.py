"""TaylorSeer: forecast what each attention and MLP would put out (Liu et al. 2025, arXiv:2503.06923)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.forecast import of_modules
from fovea.methods.forecast import Differences
from fovea.methods.schedules import Phase, refreshes


def series(order: int, warmup: int, phase: Phase) -> Differences:
    """One output's, empty; see `TaylorSeer`."""
    return Differences(order, since=warmup - 1 if phase == "paper" else 0)


@dataclass(frozen=True, config={"extra": "forbid"})
class TaylorSeer(Cache):
    """Every `interval` steps all modules run; between, each one's output is a Taylor series of its own:
    `Forecast` with basis=taylor at the modules.

    order: of the series; 0 is reuse. Differences stand in for derivatives: order 1 meets a line, order 2 no
    parabola. warmup: first steps, which all run. phase: the first step to run after the warm-up is `interval`
    after it in the authors' code ("paper"), two after it in diffusers. The authors form no difference before
    the last step of the warm-up, so that orders 2 and 3 come one and two full steps later; diffusers does.
    modules: "attention" leaves the MLPs to run at every step, as diffusers' default does.
    """

    interval: Annotated[int, Field(ge=1)] = 5
    order: Annotated[int, Field(ge=0, le=3)] = 1
    warmup: Annotated[int, Field(ge=1)] = 3
    phase: Phase = "diffusers"
    modules: Literal["all", "attention"] = "all"

    off: ClassVar = {"interval": 1}

    def runs(self, i: int) -> bool:
        """Whether step i is evaluated."""
        return refreshes(i, self.interval, self.warmup, self.phase)

    def saves(self, steps):
        return not all(map(self.runs, range(steps)))

    def start(self, flow, steps):
        return of_modules(flow, self.runs, lambda: series(self.order, self.warmup, self.phase), self.modules)

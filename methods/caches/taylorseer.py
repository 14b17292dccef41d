"""TaylorSeer: forecast what each attention and MLP would put out (Liu et al. 2025, arXiv:2503.06923)."""

from collections import defaultdict
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.forecast import Forecast

Phase = Literal["diffusers", "paper"]


def refreshes(i: int, interval: int, warmup: int, phase: Phase) -> bool:
    """Whether step i is evaluated, and the series goes on from there; see `TaylorSeer`."""
    lead = 1 if phase == "diffusers" else -1
    return i < warmup or (i - warmup - lead) % interval == 0


def series(order: int, warmup: int, phase: Phase) -> Forecast:
    """One output's, empty; see `TaylorSeer`."""
    return Forecast(order, since=warmup - 1 if phase == "paper" else 0)


@dataclass(frozen=True, config={"extra": "forbid"})
class TaylorSeer(Cache):
    """Every `interval` steps all modules run; between, each one's output is a Taylor series of its own.

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

    def start(self, flow, steps):
        sites = defaultdict(lambda: series(self.order, self.warmup, self.phase))

        def velocity(step, x, sigma, places=None):
            e = flow.open(x, sigma, places)
            if self.runs(step):
                told = {"record": lambda site, outputs: sites[site].update(step, outputs)}
            else:
                told = {"recall": lambda site: sites[site].at(step)}
            return e.velocity(e.run(e.hidden, modules=self.modules, **told))

        return velocity

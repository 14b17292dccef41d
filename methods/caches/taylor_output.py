"""TaylorSeer at the output: forecast the velocity itself (arXiv:2503.06923; "lite" in diffusers)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.taylorseer import series
from fovea.methods.schedules import Phase, refreshes


@dataclass(frozen=True, config={"extra": "forbid"})
class TaylorOutput(Cache):
    """Every `interval` steps the model runs; between, the velocity is a Taylor series, per token: `Forecast`
    with basis=taylor at the velocity.

    interval, order, warmup, phase: as in TaylorSeer. It needs one tensor per order instead of some hundred,
    and since each token has a series of its own, its children can inherit it: see `Series.carry`.
    """

    interval: Annotated[int, Field(ge=1)] = 3
    order: Annotated[int, Field(ge=0, le=3)] = 1
    warmup: Annotated[int, Field(ge=1)] = 2
    phase: Phase = "diffusers"

    off: ClassVar = {"interval": 1}

    def runs(self, i: int) -> bool:
        """Whether step i is evaluated."""
        return refreshes(i, self.interval, self.warmup, self.phase)

    def saves(self, steps):
        return not all(map(self.runs, range(steps)))

    def start(self, flow, steps):
        return Series(self, flow)


class Series:
    """The velocity of one trajectory."""

    def __init__(self, cache: TaylorOutput, flow):
        self.cache, self.flow = cache, flow
        self.forecast = series(cache.order, cache.warmup, cache.phase)

    def __call__(self, step, x, sigma, encodings=None):
        if not self.cache.runs(step):
            return self.forecast.at(step)[0]
        v = self.flow.velocity(x, sigma, encodings=encodings)
        self.forecast.update(step, (v,))
        return v

    def carry(self, parents):
        """The set of tokens changed: each goes on with the series of its parent, (b, m) row numbers."""
        self.forecast.carry(parents)

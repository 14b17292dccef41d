"""TaylorSeer at the output: forecast the velocity itself (arXiv:2503.06923; "lite" in diffusers)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.taylorseer import taylor_series
from fovea.methods.schedules import Phase, refreshes


@dataclass(frozen=True, config={"extra": "forbid"})
class TaylorOutput(Cache):
    """Every `interval` steps the model runs; in between the velocity is a Taylor series per token. Same as
    `Forecast` with basis=taylor at the velocity.

    Stores one tensor per order instead of some hundred. As each token has its own series, a new token can
    inherit that of its parent: see `Series.inherit`.

    interval, order, warmup, phase: as in TaylorSeer.
    """

    interval: Annotated[int, Field(ge=1)] = 3
    order: Annotated[int, Field(ge=0, le=3)] = 1
    warmup: Annotated[int, Field(ge=1)] = 2
    phase: Phase = "diffusers"

    off: ClassVar = {"interval": 1}

    def runs(self, i: int) -> bool:
        """True if step i is evaluated."""
        return refreshes(i, self.interval, self.warmup, self.phase)

    def saves(self, steps):
        return not all(map(self.runs, range(steps)))

    def start(self, flow, steps):
        return Series(self, flow)


class Series:
    """The velocity along one trajectory."""

    def __init__(self, cache: TaylorOutput, flow):
        self.cache, self.flow = cache, flow
        self.forecast = taylor_series(cache.order, cache.warmup, cache.phase)

    def __call__(self, step, x, sigma, encodings=None):
        if not self.cache.runs(step):
            return self.forecast.predict(step)[0]
        v = self.flow.velocity(x, sigma, encodings=encodings)
        self.forecast.update(step, (v,))
        return v

    def inherit(self, parents):
        """Continue with another set of tokens, each with its parent's series. parents: (b, m), old rows."""
        self.forecast.inherit(parents)

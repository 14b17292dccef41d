"""A gate: a cache that skips the transformer blocks while an indicator has hardly changed."""

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class Gate(Cache):
    """Sums the relative L1 change of an indicator since the blocks last ran. While the sum is below the
    threshold, the blocks are skipped and their last residual is added instead. The first and the last step
    always run. Each image decides for itself.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.3

    off: ClassVar = {"threshold": 0.0}

    @abstractmethod
    def indicator_of(self, flow, e, x: Tensor, sigma: Tensor, encodings) -> Tensor:
        """Return the indicator, (b', ...) with three axes. e: the evaluation at x, before any block ran."""

    def rescale(self, change: float) -> float:
        """Map the relative change of the indicator to the expected change of the output."""
        return change

    def saves(self, steps):
        return steps > 2  # the first and the last always run

    def start(self, flow, steps):
        drift, before, residual = [0.0] * len(flow.generators), None, None

        def velocity(step, x, sigma, encodings=None):
            nonlocal drift, before, residual
            e = flow.prepare(x, sigma, encodings)
            now = self.indicator_of(flow, e, x, sigma, encodings or flow.encodings())
            must_run = [True] * len(drift)
            if 0 < step < steps - 1:
                drift = [
                    d + self.rescale(c) for d, c in zip(drift, e.relative_change(now, before), strict=True)
                ]
                must_run = [not d < self.threshold or not self.threshold for d in drift]
                flow.compared.append(drift)
            drift = [0.0 if ran else d for d, ran in zip(drift, must_run, strict=True)]
            h, residual = e.run_or_reuse(e.hidden, residual, must_run)
            before = now
            return e.velocity(h)

        return velocity

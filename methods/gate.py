"""A gate: a cache that skips the blocks while what it watches has hardly changed."""

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class Gate(Cache):
    """The relative L1 change of what is watched is summed, step by step, since the blocks last ran; while it
    is below the threshold, what they added then is added again. First and last step always run; each image
    decides for itself."""

    threshold: Annotated[float, Field(ge=0)] = 0.3

    off: ClassVar = {"threshold": 0.0}

    @abstractmethod
    def watched(self, flow, e, x: Tensor, sigma: Tensor, encodings) -> Tensor:
        """What is watched, (b', ...) with three axes. e: the evaluation of all tokens at x, not yet run."""

    def rescaled(self, change: float) -> float:
        """The change of the output that is expected of this relative change."""
        return change

    def saves(self, steps):
        return steps > 2  # the first and the last run

    def start(self, flow, steps):
        drift, before, residual = [0.0] * len(flow.generators), None, None

        def velocity(step, x, sigma, encodings=None):
            nonlocal drift, before, residual
            e = flow.open(x, sigma, encodings)
            now = self.watched(flow, e, x, sigma, encodings or flow.encodings())
            due = [True] * len(drift)
            if 0 < step < steps - 1:
                drift = [d + self.rescaled(c) for d, c in zip(drift, e.change(now, before), strict=True)]
                due = [not d < self.threshold or not self.threshold for d in drift]
                flow.compared.append(drift)
            drift = [0.0 if renewed else d for d, renewed in zip(drift, due, strict=True)]
            h, residual = e.renew(e.hidden, residual, due)
            before = now
            return e.velocity(h)

        return velocity

"""Delta-DiT: reuse what a stretch of blocks adds to its input (Chen et al. 2024, arXiv:2406.01125)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class DeltaDiT(Cache):
    """Every `interval` steps all blocks run. Between, the last blocks, which draw the details, add what they
    added before while the outline forms; the first blocks, which draw the outline, do so from then on.

    share: of the blocks, how many are held, at least one. boundary: share of the steps in which the outline
    forms.
    """

    interval: Annotated[int, Field(ge=1)] = 2
    share: Annotated[float, Field(gt=0, le=1)] = 0.75
    boundary: Annotated[float, Field(ge=0, le=1)] = 0.5

    off: ClassVar = {"interval": 1}

    def start(self, flow, steps):
        i, first, last, delta = -1, 0, 0, None

        def velocity(x, sigma, places=None):
            nonlocal i, first, last, delta
            i += 1
            e = flow.open(x, sigma, places)
            runs = i % self.interval == 0
            if runs:  # what is held changes with a step that runs
                held = max(1, round(self.share * e.blocks))
                first, last = (e.blocks - held, e.blocks) if i < self.boundary * steps else (0, held)
            h = e.run(e.hidden, 0, first)
            h, delta = e.renew(h, delta, [runs] * len(flow.generators), first, last)
            return e.velocity(e.run(h, last))

        return velocity

"""Delta-DiT: reuse the residual of a range of blocks (Chen et al. 2024, arXiv:2406.01125)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class DeltaDiT(Cache):
    """Every `interval` steps all blocks run. In between, some blocks reuse their last residual: the last
    blocks, which generate details, while the outline forms; after that the first blocks, which generate the
    outline.

    share: share of the blocks that are cached, at least one.
    boundary: share of the steps during which the outline forms.
    """

    interval: Annotated[int, Field(ge=1)] = 2
    share: Annotated[float, Field(gt=0, le=1)] = 0.75
    boundary: Annotated[float, Field(ge=0, le=1)] = 0.5

    off: ClassVar = {"interval": 1}

    def saves(self, steps):
        return self.interval > 1 and steps > 1

    def start(self, flow, steps):
        delta = None

        def velocity(step, x, sigma, encodings=None):
            nonlocal delta
            e = flow.prepare(x, sigma, encodings)
            ahead = step % self.interval  # steps since the last full one, where the cached range is chosen
            cached, outline = max(1, round(self.share * e.blocks)), step - ahead < self.boundary * steps
            first, last = (e.blocks - cached, e.blocks) if outline else (0, cached)
            h = e.run(e.hidden, 0, first)
            h, delta = e.run_or_reuse(h, delta, [ahead == 0] * len(flow.generators), first, last)
            return e.velocity(e.run(h, last))

        return velocity

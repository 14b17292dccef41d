"""DBCache: always run the first and last blocks, and the middle ones only when needed (cache-dit 1.5)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class DBCache(Cache):
    """While the residual of the first blocks differs little from its value when the middle blocks last ran,
    the middle blocks are skipped and their last residual is added instead. Each image decides for itself.

    threshold: bound on the relative L1 difference. cache-dit skips at any difference if it is 1 or more.
    front, back: number of first and last blocks that always run.
    warmup: number of first steps that run in full.
    max_skips, max_in_a_row: maximum number of skipped evaluations, in total and in a row; None for no limit.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.08
    front: Annotated[int, Field(ge=1)] = 1
    back: Annotated[int, Field(ge=0)] = 0
    warmup: Annotated[int, Field(ge=0)] = 4
    max_skips: Annotated[int, Field(ge=0)] | None = None
    max_in_a_row: Annotated[int, Field(ge=0)] | None = None

    off: ClassVar = {"threshold": 0.0}

    def saves(self, steps):
        return steps > max(self.warmup, 1) and 0 not in (self.max_skips, self.max_in_a_row)

    def start(self, flow, steps):
        b = len(flow.generators)
        skips, in_a_row, before, middle = [0] * b, [0] * b, None, None

        def velocity(step, x, sigma, encodings=None):
            nonlocal before, middle
            e = flow.prepare(x, sigma, encodings)
            last = e.blocks - self.back
            self.check_blocks(e.blocks)
            h = e.run(e.hidden, 0, self.front)
            now = h - e.hidden
            must_run = [True] * b
            if step >= self.warmup and before is not None:
                change = e.relative_change(e.compared(now), e.compared(before))
                must_run = [self.must_run(c, *past) for c, *past in zip(change, skips, in_a_row, strict=True)]
                flow.compared.append(change)
            for image, ran in enumerate(must_run):
                skips[image] += not ran
                in_a_row[image] = 0 if ran else in_a_row[image] + 1
            before = e.merge(before, now, must_run)
            h, middle = e.run_or_reuse(h, middle, must_run, self.front, last)
            return e.velocity(e.run(h, last))

        return velocity

    def must_run(self, change: float, skips: int, in_a_row: int) -> bool:
        """True if the middle blocks of an image have to run."""
        limit_reached = self.max_skips is not None and skips >= self.max_skips
        limit_reached = limit_reached or (self.max_in_a_row is not None and in_a_row >= self.max_in_a_row)
        return limit_reached or not change < self.threshold

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError if the model has too few blocks to leave any in the middle."""
        if self.front + self.back >= blocks:
            raise ValueError(
                f"front={self.front}, back={self.back}: no block is left in the middle of {blocks}; "
                "front + back must be less"
            )

"""When tokens are left out, and how many: dense first steps, dense resets in between, a ratio of the tokens on the others."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config={"extra": "forbid"})
class Sparsity:
    """The schedule of RAS (arXiv:2502.10389, section 3.4), shared by every method that leaves tokens out.

    steps: number of Euler steps; None for the model's own.
    ratio: share of the tokens that run on a sparse step; 1 is the baseline.
    start: first step that may be sparse.
    resets: dense steps after `start`, which clear the accumulated error; None spaces two of them at thirds of what follows
        `start`, as the paper does (12 and 20 of 28 steps).
    fall, every: the ratio falls by `fall` every so many steps, around the same average (Lumina: 1/16 every 4 steps).
    """

    steps: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    start: Annotated[int, Field(ge=1)] = 4
    resets: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    fall: Annotated[float, Field(ge=0, lt=1)] = 0.0
    every: Annotated[int, Field(ge=1)] = 4

    def __post_init__(self):
        if self.steps is not None:
            self.sparse_steps(self.steps)

    def sparse_steps(self, steps: int) -> list[int]:
        """The steps that leave tokens out. ValueError where `start` or a reset lies outside the run."""
        if self.start >= steps:
            raise ValueError(
                f"start={self.start}: must be less than steps={steps}; lower start or raise steps"
            )
        third = (steps - self.start) / 3
        resets = (
            (self.start + int(third), self.start + int(2 * third)) if self.resets is None else self.resets
        )
        late = [i for i in resets if i >= steps]
        if late:
            raise ValueError(
                f"resets={list(resets)}: must be less than steps={steps}; resets=null spaces them evenly"
            )
        return [i for i in range(self.start, steps) if i not in resets]

    def kept(self, n: int, steps: int) -> list[int]:
        """How many of n tokens run at each step."""
        sparse = self.sparse_steps(steps) if self.ratio < 1 else []
        centre = sum(i // self.every for i in sparse) / max(len(sparse), 1)
        shares = {i: self.ratio - self.fall * (i // self.every - centre) for i in sparse}
        return [min(max(round(shares.get(i, 1) * n), 1), n) for i in range(steps)]

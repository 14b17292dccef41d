"""Schedule of sparse sampling: dense first steps and error resets; on the others a ratio of active tokens."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from fovea.methods.schedules import ascending


@dataclass(frozen=True, config={"extra": "forbid"})
class Sparsity:
    """The schedule of RAS (arXiv:2502.10389), shared by all methods that leave tokens inactive.

    steps: number of Euler steps; None for the model's default.
    ratio: share of the tokens that are active on a sparse step; 1 is the baseline.
    start: first step that may be sparse.
    resets: dense steps after `start`, which clear the accumulated error. None places two, at thirds of the
        steps after `start`, as the paper does (12 and 20 of 28 steps).
    fall, every: the ratio falls by `fall` every `every` steps, around a constant average (Lumina: 1/16 every
        4).
    text: on a sparse step, "run" runs all text tokens, as the paper does; "keep" runs none, and active tokens
        attend to the text's keys and values of the last dense step (ours). The same where the text never runs
        (Lumina).
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    start: Annotated[int, Field(ge=1)] = 4
    resets: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(ascending)] | None = None
    fall: Annotated[float, Field(ge=0, lt=1)] = 0.0
    every: Annotated[int, Field(ge=1)] = 4
    text: Literal["run", "keep"] = "run"

    def __post_init__(self):
        if self.steps is not None:
            self.sparse_steps(self.steps)

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if the schedule does not fit the number of steps."""
        self.sparse_steps(steps)

    def sparse_steps(self, steps: int) -> list[int]:
        """Return the sparse steps. ValueError if `start` or a reset lies outside the run."""
        if self.start >= steps:
            raise ValueError(
                f"start={self.start}: must be less than steps={steps}; lower start or raise steps"
            )
        third = (steps - self.start) / 3
        resets = self.resets if self.resets is not None else (self.start + int(j * third) for j in (1, 2))
        resets = list(resets)
        if any(i >= steps for i in resets):
            raise ValueError(
                f"resets={resets}: must be less than steps={steps}; resets=null spaces them evenly"
            )
        return [i for i in range(self.start, steps) if i not in resets and self.ratio < 1]

    def saves(self, steps: int) -> bool:
        """True if some step is sparse. steps: the model's default."""
        return bool(self.sparse_steps(steps if self.steps is None else self.steps))

    def inactive_counts(self, n: int, steps: int) -> list[int]:
        """Return how many of n tokens are inactive at each step."""
        sparse = self.sparse_steps(steps)
        middle = sum(i // self.every for i in sparse) / max(len(sparse), 1)
        ratios = {i: self.ratio - self.fall * (i // self.every - middle) for i in sparse}
        return [n - min(max(round(ratios.get(i, 1) * n), 1), n) for i in range(steps)]

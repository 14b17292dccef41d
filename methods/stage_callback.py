"""The arguments of `on_step` for methods in stages, each with its own set of tokens (RALU, Lift)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor


@dataclass
class StageCallback:
    """Forwards steps to `on_step`, if there is one, counted through all stages, and adds

    before: state (b, m, c) at the start of the step.
    positions: of the tokens on the half-resolution grid, (b, m, 2) (see `resolution.split`); None at full
        resolution.
    density: tokens per cell of the full-resolution `grid`, (b, n): 1/4 at half resolution; None at full.
    regions: scores (b, m) by which the stage's regions were chosen; None if none were.
    """

    on_step: Callable[..., None] | None
    grid: tuple[int, int]
    steps: Iterator[int] = field(default_factory=count)
    before: Tensor | None = None
    stage: dict[str, Any] = field(default_factory=dict)

    def begin(self, x, positions=None, fine=None, regions=None):
        """Start a stage at x. fine: (b, n / 4), 1 for cells at full resolution and 0 for cells at half."""
        if self.on_step:
            density = None if fine is None else spread(0.25 + 0.75 * fine, self.grid)
            self.before, self.stage = x, {"positions": positions, "density": density, "regions": regions}

    def __call__(self, *, i=None, x, **step):
        """Report a step. The index i is replaced by the count over all stages."""
        if self.on_step:
            self.on_step(i=next(self.steps), x=x, before=self.before, **step, **self.stage)
            self.before = x


def spread(density, grid):
    """Repeat values of half-resolution tokens (b, m) onto the full grid: (b, n)."""
    cells = density.unflatten(1, (grid[0] // 2, grid[1] // 2))
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)

"""What `on_step` is told of a method in stages, each with tokens of its own (RALU)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor


@dataclass
class Notes:
    """Hands steps on to `on_step`, if there is one, counted through all stages, and with each

    before: the state (b, m, c) that the step started from;
    at: positions (b, m, 2) of the tokens on the half-resolution grid, see `resolution.split`; None at full;
    density: how many tokens stand for each token of the full `grid` (b, n), 1/4 at half; None at full;
    regions: scores (b, m) that the stage's regions were chosen by; None where there was no choice.
    """

    on_step: Callable[..., None] | None
    grid: tuple[int, int]
    steps: Iterator[int] = field(default_factory=count)
    before: Tensor | None = None
    stage: dict[str, Any] = field(default_factory=dict)

    def begin(self, x, at=None, fine=None, regions=None):
        """A stage starts at x, with tokens at half resolution but for the cells `fine` (b, n / 4)."""
        if self.on_step:
            density = None if fine is None else spread(0.25 + 0.75 * fine, self.grid)
            self.before, self.stage = x, {"at": at, "density": density, "regions": regions}

    def __call__(self, *, i=None, x, **step):
        """Any number i that a part of the method counts for itself gives way."""
        if self.on_step:
            self.on_step(i=next(self.steps), x=x, before=self.before, **step, **self.stage)
            self.before = x


def spread(density, grid):
    """Of half-resolution tokens (b, m), for each token of the full grid: (b, n)."""
    cells = density.unflatten(1, (grid[0] // 2, grid[1] // 2))
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)

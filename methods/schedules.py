"""Schedules of a cache: the steps of a trajectory that run, known in advance."""

from collections.abc import Sequence
from typing import Literal

Phase = Literal["diffusers", "paper"]

FITTED = {  # L2P (arXiv:2604.26365), for FLUX.1 at 50 steps, by average interval
    5: (0, 1, 2, 4, 6, 9, 14, 23, 30, 37, 44),
    6: (0, 1, 2, 4, 7, 14, 23, 31, 38, 45),
    7: (0, 1, 2, 4, 9, 17, 26, 35, 43),
    8: (0, 1, 2, 4, 10, 20, 31, 41),
    10: (0, 1, 2, 4, 12, 24, 38),
    16: (0, 1, 2, 4, 16, 32),
}


def ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Return the steps in order, each once: lists of the same steps are one setting."""
    return tuple(sorted({*steps}))


def refreshes(i: int, interval: int, warmup: int, phase: Phase) -> bool:
    """True if step i runs: the first `warmup` steps, and then every `interval` steps.

    The first step to run after the warm-up is `interval` steps after it in TaylorSeer's code ("paper"), two
    after it in diffusers.
    """
    lead = 1 if phase == "diffusers" else -1
    return i < warmup or (i - warmup - lead) % interval == 0


def growing(steps: int, warmup: int, growth: float) -> tuple[int, ...]:
    """Spectrum (arXiv:2603.01623): the interval starts at 2 after the warm-up and grows by `growth`."""
    interval, skipped, full = 2.0, 0, [*range(min(warmup, steps))]
    for i in range(warmup, steps):
        skipped += 1
        if skipped % int(interval) == 0:
            full.append(i)
            interval, skipped = interval + growth, 0
    return tuple(full)


def stretched(full: Sequence[int], of: int, steps: int) -> tuple[int, ...]:
    """Map the steps `full` of a run of `of` steps to a run of `steps` steps, at equal fractions."""
    return tuple(sorted({min(round(i * steps / of), steps - 1) for i in full}))

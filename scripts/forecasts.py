"""What the cache `forecast` has to know of a model, from inner products of velocities of dense runs."""

from collections.abc import Sequence
from functools import cache
from math import inf

import numpy as np

RIDGE = 1e-2  # of the mean square of the velocities: on forecasts in their turn, less than 1e-3 runs away


def table(gram: np.ndarray) -> list[list[float]]:
    """Row i holds the weights of steps 0 to i - 1 that predict step i best, in ridge regression towards reuse
    (L2P, arXiv:2604.26365, which begins there and stops early). gram: inner products of the velocities
    (steps, steps), summed over images."""
    rows: list[list[float]] = [[]]
    for i in range(1, len(gram)):
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(i)
        change = np.linalg.solve(gram[:i, :i] + ridge, gram[:i, i] - gram[:i, i - 1])
        change[-1] += 1
        rows.append([float(w) for w in change])
    return rows


def missed(gram: np.ndarray, ways: np.ndarray, before: int | None, last: int, end: int) -> float:
    """How far the state at step `end` is off where the steps after `last` are forecast from it and the one
    that ran `before`, on the line through both: its norm, over images."""
    found = np.zeros(len(gram))
    for k in range(last + 1, end):
        slope = 0.0 if before is None else (k - last) / (last - before)
        found[k] -= ways[k]
        found[last] += ways[k] * (1 + slope)
        if before is not None:
            found[before] -= ways[k] * slope
    return float(np.sqrt(max(found @ gram @ found, 0.0)))


def cheapest(gram: np.ndarray, levels: Sequence[float], budget: int, power: float = 2.0) -> list[int]:
    """The `budget` steps to run, 0 first, that add up to the least: the sum over gaps of what each misses, to
    a power, by dynamic programming over pairs of steps (MeanCache, arXiv:2601.19961, whose power is 4 to 5).

    levels: the noise levels, (steps + 1,).
    """
    ways, steps = np.diff(np.asarray(levels, dtype=float)), len(gram)

    @cache
    def gap(before: int | None, last: int, end: int) -> float:
        return missed(gram, ways, before, last, end) ** power

    @cache
    def best(before: int | None, last: int, left: int) -> tuple[float, tuple[int, ...]]:
        """Of what follows `last`, with so many steps yet to run."""
        if left == 0:
            return gap(before, last, steps), ()
        found: tuple[float, tuple[int, ...]] = (inf, ())
        for run in range(last + 1, steps - left + 1):
            cost, rest = best(last, run, left - 1)
            found = min(found, (gap(before, last, run) + cost, (run, *rest)))
        return found

    return [0, *best(None, 0, budget - 1)[1]]

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


def missed(gram: np.ndarray, ways: np.ndarray, last: int, end: int) -> float:
    """How far the state at step `end` is off where the velocity of step `last` is kept until then: its norm,
    over images."""
    off = np.zeros(len(gram))
    off[last:end] -= ways[last:end]
    off[last] += ways[last:end].sum()
    return float(np.sqrt(max(off @ gram @ off, 0.0)))


def cheapest(gram: np.ndarray, levels: Sequence[float], budget: int, power: float = 2.0) -> list[int]:
    """The `budget` steps to run, 0 first, whose gaps add up to the least: what reuse misses in each, to a
    power, by dynamic programming (MeanCache, arXiv:2601.19961, whose power is 4 to 5).

    By reuse, whatever the basis: steps chosen by what a line through two values misses on dense runs were
    worse with that very line, since it starts from states that are off. levels: noise levels (steps + 1,).
    """
    ways, steps = np.diff(np.asarray(levels, dtype=float)), len(gram)

    @cache
    def best(last: int, left: int) -> tuple[float, tuple[int, ...]]:
        """Of what follows `last`, with so many steps yet to run."""
        if left == 0:
            return missed(gram, ways, last, steps) ** power, ()
        found: tuple[float, tuple[int, ...]] = (inf, ())
        for run in range(last + 1, steps - left + 1):
            cost, rest = best(run, left - 1)
            found = min(found, (missed(gram, ways, last, run) ** power + cost, (run, *rest)))
        return found

    return [0, *best(0, budget - 1)[1]]

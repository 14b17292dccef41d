"""Fit the cache `forecast` to a model, from inner products of the velocities of dense runs."""

from collections.abc import Sequence
from functools import cache
from math import inf

import numpy as np

RIDGE = 1e-2  # of the velocities' mean square; below 1e-3, forecasts made from forecasts diverge


def table(gram: np.ndarray) -> list[list[float]]:
    """Return the weights that predict the velocity of each step: row i has those of steps 0 to i - 1.

    Ridge regression towards reuse; L2P (arXiv:2604.26365) instead starts from reuse and stops early.
    gram: inner products of the velocities (steps, steps), summed over images.
    """
    rows: list[list[float]] = [[]]
    for i in range(1, len(gram)):
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(i)
        change = np.linalg.solve(gram[:i, :i] + ridge, gram[:i, i] - gram[:i, i - 1])
        change[-1] += 1
        rows.append([float(w) for w in change])
    return rows


def reuse_error(gram: np.ndarray, deltas: np.ndarray, last: int, end: int) -> float:
    """Return the error norm, over images, of the state at step `end` if the velocity of step `last` is reused
    until then. deltas: noise level differences of the steps."""
    off = np.zeros(len(gram))
    off[last:end] -= deltas[last:end]
    off[last] += deltas[last:end].sum()
    return float(np.sqrt(max(off @ gram @ off, 0.0)))


def cheapest(gram: np.ndarray, levels: Sequence[float], budget: int, power: float = 2.0) -> list[int]:
    """Return the `budget` steps to run, 0 first, that minimise the sum over gaps of reuse's error to a power.

    Dynamic programming as in MeanCache (arXiv:2601.19961), whose power is 4 to 5. The error is that of reuse
    whatever the basis: steps chosen by the error of linear extrapolation on dense runs were worse with that
    very extrapolation, because in use it starts from inexact states. levels: noise levels (steps + 1,).
    """
    deltas, steps = np.diff(np.asarray(levels, dtype=float)), len(gram)

    @cache
    def best(last: int, left: int) -> tuple[float, tuple[int, ...]]:
        """Return the cost and the steps after `last`, with `left` steps still to run."""
        if left == 0:
            return reuse_error(gram, deltas, last, steps) ** power, ()
        found: tuple[float, tuple[int, ...]] = (inf, ())
        for run in range(last + 1, steps - left + 1):
            cost, rest = best(run, left - 1)
            found = min(found, (reuse_error(gram, deltas, last, run) ** power + cost, (run, *rest)))
        return found

    return [0, *best(0, budget - 1)[1]]

"""The Pareto front of cost and quality, the certainty of its members, and its hypervolume.

Costs are relative to the dense run, less is better; qualities are signed so that more is better, in the
score's unit. Both are given as joint replicates, (r, k) for k cells.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def on_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.bool_]:
    """Return which of (..., k) cells are not dominated by one as cheap and as good, and better in one."""
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    as_cheap = c[..., None, :] <= c[..., :, None]  # (..., cell, other)
    as_good = q[..., None, :] >= q[..., :, None]
    better = (c[..., None, :] < c[..., :, None]) | (q[..., None, :] > q[..., :, None])
    return np.logical_not((as_cheap & as_good & better).any(-1))


def membership(cost: ArrayLike, quality: ArrayLike) -> Array:
    """Return the share of replicates (r, k) in which each cell is on the front, (k,)."""
    return on_front(cost, quality).mean(0)


def hypervolume(cost: ArrayLike, quality: ArrayLike, worst: float) -> Array:
    """Return the area (...,) between the front of (..., k) cells and the corner (1, `worst`).

    1 is the cost of the dense run. This is the best quality above `worst` achievable within a budget,
    averaged over budgets from 0 to dense. A budget that buys nothing, or nothing above `worst`, counts as 0;
    cells costlier than dense are ignored.
    """
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    order = np.argsort(c, -1)
    c, q = np.take_along_axis(c, order, -1), np.take_along_axis(q, order, -1)
    best = np.maximum.accumulate((q - worst).clip(0), -1)
    c = c.clip(0, 1)
    until = np.concatenate([c[..., 1:], np.ones_like(c[..., :1])], -1)
    return np.asarray(((until - c) * best).sum(-1))

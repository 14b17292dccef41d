"""Which cells are worth having: the Pareto front of cost and quality, how sure its members are, and how much
it covers.

Costs are shares of the dense run's, less is better; qualities are signed so that more is better, in the
score's own unit. Both come as replicates, (r, k) of k cells, drawn together.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def on_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.bool_]:
    """(..., k): no other cell is as cheap and as good, and better in one of the two."""
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    as_cheap = c[..., None, :] <= c[..., :, None]  # (..., cell, other)
    as_good = q[..., None, :] >= q[..., :, None]
    better = (c[..., None, :] < c[..., :, None]) | (q[..., None, :] > q[..., :, None])
    return np.logical_not((as_cheap & as_good & better).any(-1))


def membership(cost: ArrayLike, quality: ArrayLike) -> Array:
    """(k,): the share of replicates (r, k) in which each cell is on the front."""
    return on_front(cost, quality).mean(0)


def hypervolume(cost: ArrayLike, quality: ArrayLike, worst: float) -> Array:
    """(...,): the area between the front of (..., k) and the corner of the dense run's cost, 1, and `worst`.

    That is the best quality above `worst` to be had within a budget, averaged over budgets from 0 to dense: a
    budget that buys nothing, or nothing above `worst`, counts as 0, and so does what costs more than dense.
    """
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    order = np.argsort(c, -1)
    c, q = np.take_along_axis(c, order, -1), np.take_along_axis(q, order, -1)
    best = np.maximum.accumulate((q - worst).clip(0), -1)
    c = c.clip(0, 1)
    until = np.concatenate([c[..., 1:], np.ones_like(c[..., :1])], -1)
    return np.asarray(((until - c) * best).sum(-1))

"""Cells of one baseline resampled together: what each costs and what it is worth, had other prompts and other
batches been drawn."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fovea.eval import Better
from fovea.eval.statistics import Groups, replicated
from fovea.study.analysis.row import Cost, Row

Array = NDArray[np.float64]
REPLICATES = 2000


def costs(rows: Sequence[Row]) -> Array:
    """(k,): each cell's cost as a share of the dense run's."""
    return np.array([1 / row.cheaper for row in rows])


def drawn_costs(rows: Sequence[Row], kind: Cost, seed: int = 1) -> Array:
    """(r, k). Time: the median over the batches that all cells have, batches drawn; with fewer than two, and
    where nothing is known of the parts, the costs as they are. FLOPs: the mean over images, prompts drawn."""
    units = [unit for unit in rows[0].relative if all(unit in row.relative for row in rows)]
    if len(units) < 2:
        return np.broadcast_to(costs(rows), (REPLICATES, len(rows)))
    shares = np.array([[row.relative[unit] for row in rows] for unit in units])  # (units, k)
    if kind == "flops":
        same = tuple(units) == rows[0].keys
        return replicated(shares, seed=0, replicates=REPLICATES, groups=groups(rows[0]) if same else None)
    draw = np.random.default_rng(seed)
    turns = (draw.integers(0, len(units), len(units)) for _ in range(REPLICATES))
    medians, middle = np.array([np.median(shares[turn], axis=0) for turn in turns]), np.median(shares, axis=0)
    return middle + (medians - middle) * math.sqrt(len(units) / (len(units) - 1))  # few are too narrow


def qualities(rows: Sequence[Row], name: str) -> Array:
    """(k,): signed so that more is better."""
    return np.array([sign(rows[0].scores[name].better) * (row.scores[name].value or 0.0) for row in rows])


def drawn_qualities(rows: Sequence[Row], name: str) -> Array | None:
    """(r, k), prompts drawn; None unless all cells have the same images."""
    first = rows[0]
    scores = [row.scores[name] for row in rows]
    each = [score.per_image for score in scores if score.per_image is not None]
    n = first.scores[name].n
    if len(each) < len(rows) or n < 2 or any(len(x) != n for x in each):
        return None
    if any(row.keys != first.keys for row in rows):
        return None
    pool = scores[0].pool
    drawn = replicated(np.array(each).T, pool, REPLICATES, groups=groups(first))
    return sign(scores[0].better) * drawn


def groups(row: Row) -> Groups:
    """The prompt of each image."""
    return row.prompts or None


def independent(row: Row, name: str) -> int:
    """How many prompts there are."""
    return len(set(row.prompts)) or row.scores[name].n


def sign(better: Better) -> int:
    return 1 if better == "higher" else -1

"""Cells of one baseline resampled together: what each costs and what it is worth, had other prompts and other
batches been drawn."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fovea.eval import Better
from fovea.eval.interval import Interval, studentised
from fovea.eval.statistics import REPLICATES, Groups, Resampled
from fovea.study.analysis.row import Cost, Row

Array = NDArray[np.float64]
Figure = Callable[[Array, Array], Array]  # of costs and qualities (r, k) each, to (r,)
NOWHERE = float("nan")


def costs(rows: Sequence[Row]) -> Array:
    """(k,): each cell's cost as a share of the dense run's."""
    return np.array([1 / row.cheaper for row in rows])


def drawn_costs(rows: Sequence[Row], kind: Cost) -> Array:
    """(r, k). Time: the median over the batches that all cells have, batches drawn; with fewer than two, and
    where nothing is known of the parts, the costs as they are. FLOPs: the mean over images, prompts drawn."""
    units = [unit for unit in rows[0].relative if all(unit in row.relative for row in rows)]
    if len(units) < 2:
        return np.broadcast_to(costs(rows), (REPLICATES, len(rows)))
    shares = [tuple(row.relative[unit] for unit in units) for row in rows]
    if kind == "flops":
        same = tuple(units) == rows[0].keys
        return Resampled(np.array(shares).T, groups=groups(rows[0]) if same else None).drawn
    return np.stack([_medians(own) for own in shares], 1)


@lru_cache(maxsize=256)
def _medians(shares: tuple[float, ...], seed: int = 1) -> Array:
    """(r,): of the same draws for all of as many batches. Kept, since every score of a cell asks for them."""
    x, n, draw = np.array(shares), len(shares), np.random.default_rng(seed)
    some = max(1, 10**6 // n)  # draws in memory at once
    sizes = [min(some, REPLICATES - done) for done in range(0, REPLICATES, some)]
    medians = np.concatenate([np.median(x[draw.integers(0, n, (r, n))], axis=1) for r in sizes])
    middle = np.median(x)
    return middle + (medians - middle) * math.sqrt(n / (n - 1))  # few are too narrow


def qualities(rows: Sequence[Row], name: str) -> Array:
    """(k,): signed so that more is better."""
    return np.array([sign(rows[0].scores[name].better) * (row.scores[name].value or 0.0) for row in rows])


def resampled(rows: Sequence[Row], name: str) -> Resampled | None:
    """The score of each cell; None unless all cells have the same images. Not signed."""
    first = rows[0]
    scores = [row.scores[name] for row in rows]
    each = [score.per_image for score in scores if score.per_image is not None]
    if len(each) < len(rows) or any(row.keys != first.keys for row in rows):
        return None
    if not each[0] or any(len(x) != len(each[0]) for x in each):
        return None
    return Resampled(np.array(each).T, scores[0].pool, groups(first))


def interval(figure: Figure, rows: Sequence[Row], name: str) -> Interval | None:
    """A figure of the costs and the qualities (r, k), signed so that more is better, of each of r draws.

    Studentised: a resample's error is that of its prompts at the costs as they are, and that of the costs at
    the qualities as they are. Without the same images in every cell, or of one prompt, it has no bounds; None
    where a score is infinite.
    """
    cost, quality, both = costs(rows)[None], qualities(rows, name)[None], resampled(rows, name)
    if not np.isfinite(quality).all():
        return None
    value, way = float(figure(cost, quality)[0]), sign(rows[0].scores[name].better)
    slope = way * _slope(figure, cost, quality)
    by_prompt = None if both is None else both.error(slope)
    if both is None or by_prompt is None:
        return Interval(value, NOWHERE, NOWHERE, 0.0)
    spent = drawn_costs(rows, rows[0].cost)
    by_cost = float(figure(spent, quality.repeat(len(spent), 0)).std())
    error, ratios = math.hypot(by_prompt, by_cost), np.array([])
    if both.resampling and error:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (figure(spent, way * both.drawn) - value) / np.hypot(both.errors(slope), by_cost)
    single = both.pool == "mean" and rows[0].scores[name].facts.kind != "distance"
    if not single or not by_prompt:
        return studentised(value, error, ratios, both.prompts)
    failing = both.failing(slope, by_prompt)
    return studentised(value, error, ratios, both.prompts, worse="either", **failing)


def _slope(figure: Figure, cost: Array, quality: Array) -> Array:
    """(k,): by how much the figure changes with the quality of each cell, (1, k)."""
    step = 1e-4 * (float(np.ptp(quality)) or 1.0)
    nudged = quality + step * np.eye(quality.shape[1])
    return (figure(cost.repeat(len(nudged), 0), nudged) - figure(cost, quality)) / step


def groups(row: Row) -> Groups:
    """The prompt of each image."""
    return row.prompts or None


def prompts(row: Row, name: str) -> int:
    """How many there are."""
    return len(set(row.prompts)) or row.scores[name].n


def sign(better: Better) -> int:
    return 1 if better == "higher" else -1

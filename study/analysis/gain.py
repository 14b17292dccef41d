"""The headline: what a method is worth beyond doing fewer steps at the same cost.

The step-reduction curve is interpolated in a straight line, in the cost, between its two points beside the
method. The interval of the gain holds what is uncertain in the method, in both points and in all three costs
(prompts and batches are resampled together), and is stretched to what a cubic through the whole curve that
keeps its shape would give: a curve that bends between its points lies above the line.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from fovea.eval.interval import Interval, farther
from fovea.study.analysis.bootstrap import Array, costs, interval, prompts, qualities
from fovea.study.analysis.row import Cost, Row

CURVE = ("dense", "steps")


def with_gain(rows: Sequence[Row], cost: Cost = "time") -> list[Row]:
    """The rows with their gain over the step-reduction curve of the same baseline, at equal time or FLOPs."""
    rows = [replace(row, cost=cost) for row in rows]
    return [row if row.cell.role != "method" else _gained(row, _curve(row, rows)) for row in rows]


def _curve(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Of the same images: figures of other prompts do not compare, nor biased ones of other numbers."""
    rivals = [r for r in rows if r.cell.dense == row.cell.dense and r.cell.role in CURVE]
    return [r for r in rivals if r.cheaper and r.keys == row.keys]


def _gained(row: Row, curve: Sequence[Row]) -> Row:
    if not row.cheaper:
        return row
    found = {
        name: gain(row, [r for r in curve if _known(r, name)], name)
        for name, score in row.scores.items()
        if not score.facts.hidden
    }
    return replace(row, gain={name: interval for name, interval in found.items() if interval is not None})


def _known(row: Row, name: str) -> bool:
    score = row.scores.get(name)
    return score is not None and score.value is not None and math.isfinite(score.value)


def gain(row: Row, curve: Sequence[Row], name: str) -> Interval | None:
    """None beyond the ends of the curve, and without a score."""
    if len(curve) < 2 or not _known(row, name):
        return None
    curve = sorted(curve, key=lambda r: r.cheaper, reverse=True)
    cost, quality = costs([row, *curve]), qualities([row, *curve], name)
    if not cost[1] <= cost[0] <= cost[-1]:
        return None
    found = interval(_over, [row, *curve], name)
    return None if found is None else _stretched(found, bend(cost, quality), prompts(row, name))


def _over(cost: Array, quality: Array) -> Array:
    """(r,): the first of (r, k) cells less the line through the others."""
    return quality[:, 0] - line(cost[:, 0], cost[:, 1:], quality[:, 1:])


def line(at: Array, cost: Array, quality: Array) -> Array:
    """(r,): straight through the two points of curves (r, k) beside `at` (r,), a quarter beyond at most."""
    order = np.argsort(cost, 1)
    cost, quality = np.take_along_axis(cost, order, 1), np.take_along_axis(quality, order, 1)
    right = (cost < at[:, None]).sum(1).clip(1, cost.shape[1] - 1)[:, None]
    (a, b), (p, q) = ([np.take_along_axis(x, right - i, 1)[:, 0] for i in (1, 0)] for x in (cost, quality))
    share = np.divide(at - a, b - a, where=b > a, out=np.zeros_like(at))
    return p + share.clip(-0.25, 1.25) * (q - p)


def bend(cost: Array, quality: Array) -> float:
    """By how much the gain of the first of (k,) cells changes if the curve of the others bends."""
    places, index = np.unique(cost[1:], return_index=True)
    if len(places) < 3:
        return 0.0
    straight = line(cost[:1], cost[None, 1:], quality[None, 1:])[0]
    return float(straight - PchipInterpolator(places, quality[1:][index])(cost[0]))


def _stretched(found: Interval, by: float, n: int) -> Interval:
    """p: of whichever of the two gains is nearer to zero, and 1 if zero lies between them."""
    if not found.level:
        return found
    value = found.value
    nearest = min(value, value + by, key=abs) if value * (value + by) > 0 else 0.0
    p = farther(found.p or 0.0, nearest / value, n) if nearest else 1.0
    return replace(found, low=found.low + min(by, 0), high=found.high + max(by, 0), p=p)

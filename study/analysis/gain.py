"""Gain: the score of a method minus that of step reduction (the same model with fewer steps) at equal cost.

The step-reduction curve is interpolated linearly in the cost between the two points next to the method. The
interval of the gain covers the uncertainty of the method, of both points and of all three costs (prompts and
batches are resampled jointly). It is widened to include the gain over a shape-preserving cubic (PCHIP)
through the whole curve, because a curve that bends between its points deviates from the line.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from fovea.eval.interval import Interval, farther
from fovea.study.analysis.bootstrap import Array, costs, interval, prompt_count, qualities
from fovea.study.analysis.row import Cost, Row

CURVE = ("dense", "steps")


def with_gain(rows: Sequence[Row], cost: Cost = "time") -> list[Row]:
    """Add to each method's row its gain over step reduction of the same baseline, at equal time or FLOPs."""
    rows = [replace(row, cost=cost) for row in rows]
    return [row if row.cell.role != "method" else _add_gain(row, _curve(row, rows)) for row in rows]


def _curve(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Return the dense and step-reduction rows of the same baseline and the same images.

    Scores of other prompts are not comparable, nor are biased scores of another number of images.
    """
    curve = [r for r in rows if r.cell.dense == row.cell.dense and r.cell.role in CURVE]
    return [r for r in curve if r.cost_ratio and r.keys == row.keys]


def _add_gain(row: Row, curve: Sequence[Row]) -> Row:
    if not row.cost_ratio:
        return row
    found = {
        name: gain(row, [r for r in curve if _is_finite(r, name)], name)
        for name, score in row.scores.items()
        if not score.facts.hidden
    }
    return replace(row, gain={name: interval for name, interval in found.items() if interval is not None})


def _is_finite(row: Row, name: str) -> bool:
    score = row.scores.get(name)
    return score is not None and score.value is not None and math.isfinite(score.value)


def gain(row: Row, curve: Sequence[Row], name: str) -> Interval | None:
    """Return the gain of a row over the curve; None outside the cost range of the curve or without score."""
    if len(curve) < 2 or not _is_finite(row, name):
        return None
    curve = sorted(curve, key=lambda r: r.cost_ratio, reverse=True)
    cost, quality = costs([row, *curve]), qualities([row, *curve], name)
    if not cost[1] <= cost[0] <= cost[-1]:
        return None
    found = interval(_gain_statistic, [row, *curve], name)
    return None if found is None else _widened(found, bend(cost, quality), prompt_count(row, name))


def _gain_statistic(cost: Array, quality: Array) -> Array:
    """Return the quality of the first of k cells minus that of the line through the others, (r,)."""
    return quality[:, 0] - line(cost[:, 0], cost[:, 1:], quality[:, 1:])


def line(at: Array, cost: Array, quality: Array) -> Array:
    """Interpolate curves (r, k) linearly at the costs `at`, (r,).

    Beyond the ends of a curve it extrapolates by at most a quarter of the last segment.
    """
    order = np.argsort(cost, 1)
    cost, quality = np.take_along_axis(cost, order, 1), np.take_along_axis(quality, order, 1)
    right = (cost < at[:, None]).sum(1).clip(1, cost.shape[1] - 1)[:, None]
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(values, right - i, 1)[:, 0] for i in (1, 0)] for values in (cost, quality)
    )
    share = np.divide(at - x0, x1 - x0, where=x1 > x0, out=np.zeros_like(at))
    return y0 + share.clip(-0.25, 1.25) * (y1 - y0)


def bend(cost: Array, quality: Array) -> float:
    """Return how much the gain of the first of k cells changes with a cubic instead of the line.

    cost, quality: (k,).
    """
    places, index = np.unique(cost[1:], return_index=True)
    if len(places) < 3:
        return 0.0
    straight = line(cost[:1], cost[None, 1:], quality[None, 1:])[0]
    return float(straight - PchipInterpolator(places, quality[1:][index])(cost[0]))


def _widened(found: Interval, by: float, n: int) -> Interval:
    """Widen an interval to include the same shifted by `by`.

    p is that of the value nearer to zero, or 1 if zero lies between the two values.
    """
    if not found.level:
        return found
    value = found.value
    nearest = min(value, value + by, key=abs) if value * (value + by) > 0 else 0.0
    p = farther(found.p or 0.0, nearest / value, n) if nearest else 1.0
    return replace(found, low=found.low + min(by, 0), high=found.high + max(by, 0), p=p)

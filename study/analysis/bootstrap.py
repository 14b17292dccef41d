"""Joint bootstrap of the costs and qualities of cells that share a dense baseline.

Prompts are resampled for qualities and FLOPs, batches for times; all cells share the same draws.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fovea.eval import Better
from fovea.eval.interval import Interval, studentised
from fovea.eval.statistics import REPLICATES, Pool, Resampled
from fovea.study.analysis.row import Cost, Row

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], Array]  # (costs, qualities), both (r, k) -> (r,)


def costs(rows: Sequence[Row]) -> Array:
    """Return the cost of each cell relative to the dense run, (k,)."""
    return np.array([1 / row.cost_ratio for row in rows])


def cost_replicates(rows: Sequence[Row], kind: Cost) -> Array:
    """Return bootstrap replicates of the relative costs, (r, k).

    Time: the median over the batches that all cells share, with batches resampled. FLOPs: the mean over
    images, with prompts resampled. With fewer than two shared units the costs are not resampled.
    """
    units = _shared(rows)
    if len(units) < 2:
        return np.broadcast_to(costs(rows), (REPLICATES, len(rows)))
    shares = tuple(tuple(map(row.relative.__getitem__, units)) for row in rows)
    if kind == "flops":
        return _resampled(shares, "mean", rows[0].prompts if units == rows[0].keys else ()).drawn
    return np.stack([_median_replicates(own) for own in shares], 1)


def _shared(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the batches, or for FLOPs the images, of which all cells have a relative cost."""
    return tuple(unit for unit in rows[0].relative if all(unit in row.relative for row in rows))


@lru_cache(maxsize=256)
def _median_replicates(shares: tuple[float, ...]) -> Array:
    """Return bootstrap replicates of the median, (r,).

    The fixed seed gives cells with the same number of batches the same draws. Cached because every score of
    a cell needs the same replicates.
    """
    x, n, rng = np.array(shares), len(shares), np.random.default_rng(1)
    chunk = max(1, 10**6 // n)  # replicates held in memory at once
    sizes = [min(chunk, REPLICATES - done) for done in range(0, REPLICATES, chunk)]
    medians = np.concatenate([np.median(x[rng.integers(0, n, (r, n))], axis=1) for r in sizes])
    median = np.median(x)
    return median + (medians - median) * math.sqrt(n / (n - 1))  # the bootstrap is too narrow for small n


def qualities(rows: Sequence[Row], name: str) -> Array:
    """Return the score of each cell, (k,), negated where lower is better."""
    return np.array([sign(rows[0].scores[name].better) * (row.scores[name].value or 0.0) for row in rows])


def resampled(rows: Sequence[Row], name: str) -> Resampled | None:
    """Resample a per-image score of all cells jointly; None unless all cells have the same images.

    Values keep their sign, also where lower is better.
    """
    first = rows[0]
    scores = [row.scores[name] for row in rows]
    values = [score.per_image for score in scores if score.per_image is not None]
    if len(values) < len(rows) or any(row.keys != first.keys for row in rows):
        return None
    if not values[0] or any(len(x) != len(values[0]) for x in values):
        return None
    return _resampled(tuple(values), scores[0].pool, first.prompts)


@lru_cache(maxsize=16)
def _resampled(values: tuple[tuple[float, ...], ...], pool: Pool, prompts: tuple[str, ...]) -> Resampled:
    """Resample values by cell. Cached: scores share their costs, and series the cells that they are among."""
    return Resampled(np.array(values).T, pool, prompts or None)


def interval(statistic: Statistic, rows: Sequence[Row], name: str) -> Interval | None:
    """Return a studentised bootstrap interval of `statistic`, a function of costs and signed qualities.

    The standard error of a replicate combines that of its prompts at the measured costs with that of the
    costs at the measured qualities. The interval has no bounds (level 0) if the cells have different images
    or a single prompt, or were timed once: as little is known of the time then as of a speedup, which has no
    bounds either. None if a score is infinite.
    """
    cost, quality, replicates = costs(rows)[None], qualities(rows, name)[None], resampled(rows, name)
    if not np.isfinite(quality).all():
        return None
    value, direction = float(statistic(cost, quality)[0]), sign(rows[0].scores[name].better)
    slope = direction * _slope(statistic, cost, quality)
    by_prompt = None if replicates is None else replicates.error(slope)
    timed_once = rows[0].cost == "time" and len(_shared(rows)) == 1
    if replicates is None or by_prompt is None or timed_once:
        return Interval(value, math.nan, math.nan, 0.0)
    drawn_costs = cost_replicates(rows, rows[0].cost)
    by_cost = float(statistic(drawn_costs, quality.repeat(len(drawn_costs), 0)).std())
    error, ratios = math.hypot(by_prompt, by_cost), np.array([])
    if replicates.resampling and error:
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = statistic(drawn_costs, direction * replicates.drawn)
            ratios = (drawn - value) / np.hypot(replicates.errors(slope), by_cost)
    is_mean = replicates.pool == "mean" and rows[0].scores[name].facts.kind != "distance"
    if not is_mean or not by_prompt:  # only a mean of images is widened for failures that no image shows
        return studentised(value, error, ratios, replicates.prompts)
    failing = replicates.failing(slope, by_prompt)
    return studentised(value, error, ratios, replicates.prompts, worse="either", **failing)


def _slope(statistic: Statistic, cost: Array, quality: Array) -> Array:
    """Return the derivative of the statistic by the quality of each cell, (k,), by finite differences.

    cost, quality: (1, k).
    """
    step = 1e-4 * (float(np.ptp(quality)) or 1.0)
    nudged = quality + step * np.eye(quality.shape[1])
    return (statistic(cost.repeat(len(nudged), 0), nudged) - statistic(cost, quality)) / step


def prompt_count(row: Row, name: str) -> int:
    """Return the number of prompts, or of images where the prompts are unknown."""
    return len(set(row.prompts)) or row.scores[name].n


def sign(better: Better) -> int:
    """Return the factor that makes higher better."""
    return 1 if better == "higher" else -1

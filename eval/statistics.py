"""How sure a figure is: standard errors, and seeded, vectorised bootstrap intervals paired by prompt.

A resample is a row of counts, how often each image was drawn, and two methods are compared on the same ones.
Images of one prompt at several seeds are no independent draws: where `groups` names the prompt of each image,
prompts are drawn, with all of their images.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # quantiles of Student's t

from fovea.eval.interval import Interval, basic, two_sided

Array = NDArray[np.float64]
Groups = Sequence[Hashable] | None
Pool = Literal["mean", "decibel"]


def pooled(values: ArrayLike, weights: ArrayLike | None = None, pool: Pool = "mean") -> Array:
    """One figure of values (n,), or of each column of (n, k); one per row of weights (..., n) of sum n.

    decibel: 10 log10 of the mean of the powers that the values stand for, -10 log10 mean(10^(-x/10)), in
    which an infinite value (an error of zero) counts like any other.
    """
    x = np.asarray(values, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if pool == "mean":
        return w @ x / len(x)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(w @ 10 ** (-x / 10) / len(x))


def influence(values: ArrayLike, pool: Pool = "mean") -> Array:
    """(n,): n times the derivative of the figure by the weight of each image; they add up to zero."""
    x = np.asarray(values, np.float64)
    if pool == "mean":
        return x - x.mean()
    power = 10 ** (-x / 10)
    mean = power.mean()
    return 10 / math.log(10) * (1 - power / mean) if mean else np.zeros(len(x))


def codes(n: int, groups: Groups) -> tuple[NDArray[np.int64], int]:
    """The number (n,) of each image's group, and how many groups there are; each image is its own if None."""
    if groups is None:
        return np.arange(n), n
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups]), len(number)


def spread(derivative: ArrayLike, groups: Groups = None) -> float | None:
    """The standard error of a figure with this `influence` (n,): s / sqrt(n), of the sums over each group
    where images come in groups; None for a single one."""
    d = np.asarray(derivative, np.float64)
    place, g = codes(len(d), groups)
    if g < 2:
        return None
    return float(math.sqrt(g / (g - 1) * (np.bincount(place, d) ** 2).sum()) / len(d))


def standard_error(values: ArrayLike, pool: Pool = "mean", groups: Groups = None) -> float | None:
    """s / sqrt(n), through the logarithm by the delta method for decibels; None for a single value."""
    return spread(influence(values, pool), groups)


def mean_interval(
    values: ArrayLike, pool: Pool = "mean", groups: Groups = None, level: float = 0.95
) -> Interval:
    """The pooled figure of values (n,) with Student's interval; a single value has no bounds."""
    value, error = float(pooled(values, pool=pool)), standard_error(values, pool, groups)
    if error is None or not math.isfinite(value):
        return Interval(value, value, value, 0.0)
    half = -stdtrit(codes(len(np.asarray(values)), groups)[1] - 1, (1 - level) / 2) * error
    return Interval(value, float(value - half), float(value + half), level)


def resamples(
    n: int, replicates: int = 2000, seed: int | np.random.Generator = 0, groups: Groups = None
) -> Array:
    """Weights (replicates, n) that sum to n: how often each image is in `replicates` draws of n out of n with
    replacement, or of all groups out of all groups."""
    place, g = codes(n, groups)
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), size=replicates)[:, place]
    return drawn * (n / drawn.sum(1, keepdims=True))


def replicated(
    values: ArrayLike, pool: Pool = "mean", replicates: int = 2000, seed: int = 0, groups: Groups = None
) -> Array:
    """The figures (replicates, k) of the columns of (n, k), all resampled together."""
    x, draw = np.asarray(values, np.float64), np.random.default_rng(seed)
    step = max(1, 10**7 // len(x))  # weights in memory at once
    sizes = [min(step, replicates - done) for done in range(0, replicates, step)]
    return np.concatenate([pooled(x, resamples(len(x), r, draw, groups), pool) for r in sizes])


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    pool: Pool = "mean",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    groups: Groups = None,
) -> Interval:
    """a minus b, from per-image values (n,) of the same keys in the same order, resampled together; with p.

    Of a single prompt it has no bounds. Raises ValueError on unequal lengths, and where either figure is
    infinite.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"a paired difference needs as many values of each, not {x.shape} and {y.shape}")
    value = float(pooled(x, pool=pool) - pooled(y, pool=pool)) if not np.array_equal(x, y) else 0.0
    if not math.isfinite(value):
        raise ValueError("no difference in decibels to images that are all identical to the dense ones")
    n = codes(len(x), groups)[1]
    error = spread(influence(x, pool) - influence(y, pool), groups)
    if error is None:
        return Interval(value, value, value, 0.0)
    p, q = replicated(np.stack([x, y], 1), pool, replicates, seed, groups).T
    with np.errstate(invalid="ignore"):
        difference = np.where(p == q, 0.0, p - q)
    return replace(basic(value, difference, n, level), p=two_sided(value, error, n))

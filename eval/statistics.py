"""How sure a figure is: standard errors, and seeded, vectorised bootstrap intervals paired by prompt.

A resample is a row of counts, how often each image was drawn, and two methods are compared on the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of Student's t

Pool = Literal["mean", "decibel"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that hold it with probability `level`."""

    value: float
    low: float
    high: float
    level: float


def pooled(values: ArrayLike, weights: ArrayLike | None = None, pool: Pool = "mean") -> NDArray[np.float64]:
    """One figure of per-image values (n,), for each row of weights (..., n) that sum to n.

    decibel: 10 log10 of the mean of the powers that the values stand for, -10 log10 mean(10^(-x/10)), in
    which an infinite value (an error of zero) counts like any other.
    """
    x = np.asarray(values, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if pool == "mean":
        return w @ x / len(x)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(w @ 10 ** (-x / 10) / len(x))


def standard_error(values: ArrayLike, pool: Pool = "mean") -> float | None:
    """s / sqrt(n), through the logarithm by the delta method for decibels; None for a single value."""
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return None
    if pool == "mean":
        return float(x.std(ddof=1) / math.sqrt(len(x)))
    power = 10 ** (-x / 10)
    spread = power.std(ddof=1) / math.sqrt(len(x))
    return float(10 / math.log(10) * spread / power.mean()) if spread else 0.0


def resamples(n: int, replicates: int = 2000, seed: int = 0) -> NDArray[np.int64]:
    """Counts (replicates, n) of `replicates` draws of n out of n with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)


def basic(value: float, replicates: ArrayLike, n: int, level: float = 0.95) -> Interval:
    """The basic bootstrap interval, 2 value - quantile of the replicates.

    Basic and not percentile, which counts the bias of a pooled figure twice. Widened by t / z * sqrt(n / (n -
    1)), since a bootstrap of few values is too narrow by as much (Hesterberg 2015, arXiv:1411.5279). Where
    replicates are infinite, the bounds may be.
    """
    tail = (1 - level) / 2
    widen = stdtrit(n - 1, tail) / ndtri(tail) * math.sqrt(n / (n - 1))
    low, high = np.quantile(np.asarray(replicates), [tail, 1 - tail], method="inverted_cdf")
    return Interval(value, float(value - widen * (high - value)), float(value - widen * (low - value)), level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    pool: Pool = "mean",
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """a minus b, from per-image values (n,) of the same keys in the same order, resampled together.

    Raises ValueError on unequal lengths, on fewer than two images, and where either figure is infinite.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a paired difference needs two or more values each, not {x.shape} and {y.shape}")
    value = float(pooled(x, pool=pool) - pooled(y, pool=pool)) if not np.array_equal(x, y) else 0.0
    if not math.isfinite(value):
        raise ValueError("no difference in decibels to images that are all identical to the dense ones")
    weights = resamples(len(x), replicates, seed)
    p, q = pooled(x, weights, pool), pooled(y, weights, pool)
    with np.errstate(invalid="ignore"):
        difference = np.where(p == q, 0.0, p - q)
    return basic(value, difference, len(x), level)


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The median between two order statistics, which assumes nothing of the distribution.

    The narrowest symmetric pair that covers at least `level`; with fewer than six values no pair covers 95 %,
    and the range is given with the level that it has, 1 - 2^(1-n).
    """
    x = np.sort(np.asarray(values, np.float64))
    n = len(x)
    if not n:
        raise ValueError("no median of no values")
    # the pair (k, n - 1 - k) misses the median with probability 2 P(Binomial(n, 1/2) <= k)
    outside = np.cumsum([math.comb(n, k) for k in range((n + 1) // 2)]) / 2 ** (n - 1)
    k = max(int((outside <= 1 - level).sum()) - 1, 0)
    return Interval(float(np.median(x)), float(x[k]), float(x[n - 1 - k]), float(max(1 - outside[k], 0.0)))

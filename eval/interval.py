"""Bounds of an estimate: from bootstrap replicates, or from order statistics; and its p-value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtr, stdtrit  # quantiles of the normal; Student's t and its quantiles

Z = 1.96  # standard errors to a 95 % interval


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that hold it with probability `level`. p: how probable an estimate as far
    from zero would be if it were zero, two-sided, where that was asked."""

    value: float
    low: float
    high: float
    level: float
    p: float | None = None


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


def two_sided(value: float, error: float, n: int) -> float:
    """Student's p of a value with a standard error of n draws: 1 for no difference at all."""
    if value == 0 or error == 0:
        return float(value == 0)
    return float(2 * stdtr(n - 1, -abs(value) / error))


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

"""Bounds and p-value of an estimate, from bootstrap replicates or order statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr, stdtrit  # the binomial; Student's t and its quantiles

Worse = Literal["low", "high", "either"]
Side = Literal["low", "high"]
Z = 1.96  # standard errors in half a 95 % interval
FAILURE = 7.0  # assumed deviation of a rare, unobserved failure, in standard deviations
MOST = 3.0  # maximum width relative to Student's
LEAST = 0.85  # minimum width of the other side relative to Student's
SHOWN = 58  # number of images that contain a failure affecting 5 % of all with probability 95 %
EVEN, TELLING = 0.25, 1.8  # |skewness| relative to its standard error for normal draws


@dataclass(frozen=True)
class Interval:
    """An estimate with bounds that contain it with probability `level`.

    p: two-sided p-value of the estimate for a true value of zero, if computed.
    """

    value: float
    low: float
    high: float
    level: float
    p: float | None = None


def studentised(
    value: float,
    error: float,
    ratios: ArrayLike,
    n: int,
    level: float = 0.95,
    worse: Worse | None = None,
    failure: float = FAILURE,
    size: float = 1.0,
    skewness: float = 0.0,
) -> Interval:
    """Return the symmetric percentile-t bootstrap interval, value +- c error (Hall 1992, section 3.6).

    c is the `level` quantile of |ratios|, the distances of resamples from the value in units of their own
    standard errors. Without ratios c is Student's. It is at most three times Student's, because resamples may
    have lost their spread. p is for no effect, consistent with the symmetric interval.

    n: number of draws.
    worse: side of failures that are too rare to be among the n draws. The bound there is at least that of the
        draws with one more, `failure` standard deviations off. The remaining share of 1 - level is used on
        the other side, by the quantile of its ratios. Where most draws are equal, and by chance the rest lies
        on one side, that quantile is too small: it is at least 0.85 of Student's. `either`, if the side is
        not known: the side of the draws' longer tail; both if their `skewness` is inconclusive; neither if it
        shows that failures are among the draws, or if there are so many images that they would be.
    size: independent images per draw. A failure affects one of them, so it is failure / sqrt(size) standard
        deviations of a draw off.

    One sample of 24 in seven contains none of the failures that affect 8 % of all, and then looks like one
    without failures. For normal draws skewness is independent of mean and spread, so choosing the side by it
    preserves the coverage there; with failures, the correct side is chosen in more than half of such samples.
    Coverage: scripts/coverage.py.
    """
    if error == 0:
        return Interval(value, value, value, level, two_sided(value, error, n))
    above = np.asarray(ratios, np.float64)  # resamples above the value indicate a true value below it
    wide = _quantile(np.abs(above), n, level)
    p = two_sided(value, error * wide / student(n, level), n)
    sides = _failing(worse, n, n * size, skewness)
    unseen = _with_a_failure(n, level, failure / math.sqrt(size))
    left = (1 - level) - float(stdtr(n - 1, -unseen)) if len(sides) == 1 else 0.0  # for the other side
    reach = {
        side: max(wide, unseen)
        if side in sides
        else _quantile(r, n, 1 - 2 * left, 1 - left)
        if left
        else wide
        for side, r in (("low", above), ("high", -above))
    }
    return Interval(value, value - reach["low"] * error, value + reach["high"] * error, level, p)


def _failing(worse: Worse | None, n: int, images: float, skewness: float) -> tuple[Side, ...]:
    """Return the sides whose bounds allow for an unobserved failure."""
    if worse != "either":
        return () if worse is None else (worse,)
    tail = abs(skewness) / math.sqrt(6 / n)
    if images > SHOWN or tail > TELLING:
        return ()
    return ("low", "high") if tail < EVEN else ("low",) if skewness < 0 else ("high",)


def _quantile(ratios: NDArray[np.float64], n: int, level: float, share: float | None = None) -> float:
    """Return the `level` (or `share`, of one side) quantile of the ratios, limited relative to Student's."""
    usual = student(n, level)
    if not len(ratios):
        return usual
    ordered = np.sort(np.where(np.isnan(ratios), np.inf, ratios))
    least = 0.0 if share is None else LEAST * usual
    return float(np.clip(ordered[math.ceil((share or level) * len(ordered)) - 1], least, MOST * usual))


def student(n: int, level: float) -> float:
    """Return the half-width of Student's interval in standard errors of n draws."""
    return -float(stdtrit(n - 1, (1 - level) / 2))


def _with_a_failure(n: int, level: float, by: float) -> float:
    """Return the bound of n + 1 draws, one off by `by` standard deviations, in standard errors of n draws."""
    spread = (n - 1 + by**2 * n / (n + 1)) / (n + 1)
    return by * math.sqrt(n) / (n + 1) + student(n + 1, level) * math.sqrt(spread)


def two_sided(value: float, error: float, n: int) -> float:
    """Return Student's two-sided p of a value with a standard error from n draws; 1 for a value of 0."""
    if value == 0 or error == 0:
        return float(value == 0)
    return float(2 * stdtr(n - 1, -abs(value) / error))


def farther(p: float, times: float, n: int) -> float:
    """Return Student's p of a value `times` as far from zero, with the same standard error."""
    return float(2 * stdtr(n - 1, stdtrit(n - 1, p / 2) * times))


def median_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the median with bounds from order statistics, which assume little about the distribution.

    Interpolates between the narrowest symmetric pair that covers at least `level` and the next one inside it,
    after Hettmansperger and Sheather (1986, Statistics & Probability Letters 4, 75-79). From six values on,
    the coverage is exact for double exponential values and within .01 of `level` for others, including skewed
    and heavy-tailed ones. With fewer values no pair covers 95 %: the range is returned with its own level, 1
    - 2^(1-n).
    """
    x = np.sort(np.asarray(values, np.float64))
    n = len(x)
    if not n:
        raise ValueError("no median of no values")
    # the pair (k, n - 1 - k) misses the median with probability 2 P(Binomial(n, 1/2) <= k)
    outside = 2 * bdtr(np.arange((n + 1) // 2), n, 0.5)
    k = int((outside <= 1 - level).sum()) - 1
    if k < 0:
        return Interval(float(np.median(x)), float(x[0]), float(x[-1]), float(max(1 - outside[0], 0.0)))
    share = 0.0 if k + 1 == len(outside) else (1 - level - outside[k]) / (outside[k + 1] - outside[k])
    inwards = (n - k - 1) * share / (k + 1 + (n - 2 * (k + 1)) * share)
    low, high = x[k] + inwards * (x[k + 1] - x[k]), x[n - 1 - k] + inwards * (x[n - 2 - k] - x[n - 1 - k])
    return Interval(float(np.median(x)), float(low), float(high), level)

"""Bounds of an estimate: from bootstrap replicates, or from order statistics; and its p-value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr, stdtrit  # the binomial; Student's t and its quantiles

Worse = Literal["low", "high", "either"]
Side = Literal["low", "high"]
Z = 1.96  # standard errors to a 95 % interval
FAILURE = 7.0  # standard deviations that a failure too rare to be seen is off
MOST = 3.0  # times Student's
SHOWN = 58  # images among which one of a twentieth of all is, with 95 %
EVEN, TELLING = 0.25, 1.8  # skewness, in standard errors of that of normal draws


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds that hold it with probability `level`. p: how probable an estimate as far
    from zero would be if it were zero, two-sided, where that was asked."""

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
    """value +- c error of n draws, with c from a bootstrap: the quantile of |ratios|, how many of their own
    standard errors resamples are away from the value (the symmetric percentile-t, Hall 1992, section 3.6).
    Without ratios c is Student's, and it is at most three times as much, where resamples have lost their
    spread.

    worse: the side on which failures lie that are too rare to be among the n. The bound there is at least
    that of the draws with one more, `failure` standard deviations off; what that leaves of 1 - level goes to
    the other side, by the quantile of the ratios there. `either`, where it is not known on which: on that of
    the draws' longer tail, on both where their `skewness` does not say, on none where it says that failures
    are among them, or where there are so many that these would be. size: independent images in a draw, of
    which a failure is one: it is failure / sqrt(size) of the draws' standard deviations off then. p is of no
    effect at all, as the symmetric interval has it.

    One sample in seven of 24 shows none of the failures that hit 8 % of all, and is then like any without
    failures. Skewness is independent of mean and spread in normal draws, so that to choose the side by it
    leaves the coverage there what it is, and the failing side is chosen in more than half of such samples.
    Coverage: scripts/coverage.py.
    """
    if error == 0:
        return Interval(value, value, value, level, two_sided(value, error, n))
    above = np.asarray(ratios, np.float64)  # how far resamples are, which is how far the truth may be below
    wide = _quantile(np.abs(above), n, level)
    p = two_sided(value, error * wide / student(n, level), n)
    sides = _failing(worse, n, n * size, skewness)
    unseen = _with_a_failure(n, level, failure / math.sqrt(size))
    left = (1 - level) - float(stdtr(n - 1, -unseen)) if len(sides) == 1 else 0.0  # of what may be missed
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
    """The sides on which a failure that none shows is allowed for."""
    if worse != "either":
        return () if worse is None else (worse,)
    tail = abs(skewness) / math.sqrt(6 / n)
    if images > SHOWN or tail > TELLING:
        return ()
    return ("low", "high") if tail < EVEN else ("low",) if skewness < 0 else ("high",)


def _quantile(ratios: NDArray[np.float64], n: int, level: float, share: float | None = None) -> float:
    """Of ratios, `level` of them unless it is another share, within what Student's at this level allows."""
    usual = student(n, level)
    if not len(ratios):
        return usual
    ordered = np.sort(np.where(np.isnan(ratios), np.inf, ratios))
    return float(np.clip(ordered[math.ceil((share or level) * len(ordered)) - 1], 0, MOST * usual))


def student(n: int, level: float) -> float:
    """How many standard errors of n draws Student's interval goes to either side."""
    return -float(stdtrit(n - 1, (1 - level) / 2))


def _with_a_failure(n: int, level: float, by: float) -> float:
    """How many standard errors of n draws the bound of n + 1 is off, one of them off by so many standard
    deviations."""
    spread = (n - 1 + by**2 * n / (n + 1)) / (n + 1)
    return by * math.sqrt(n) / (n + 1) + student(n + 1, level) * math.sqrt(spread)


def two_sided(value: float, error: float, n: int) -> float:
    """Student's p of a value with a standard error of n draws: 1 for no difference at all."""
    if value == 0 or error == 0:
        return float(value == 0)
    return float(2 * stdtr(n - 1, -abs(value) / error))


def farther(p: float, times: float, n: int) -> float:
    """Student's p of a value so many times as far from zero, with the same standard error."""
    return float(2 * stdtr(n - 1, stdtrit(n - 1, p / 2) * times))


def median_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """The median between order statistics, which assumes next to nothing of the distribution.

    Between the narrowest symmetric pair that covers at least `level` and the next one inside it, interpolated
    as by Hettmansperger and Sheather (1986, Statistics & Probability Letters 4, 75-79): exact for double
    exponential values, and within .01 of `level` for others, skewed and of heavy tails, from six values on.
    With fewer no pair covers 95 %, and the range is given with the level that it has, 1 - 2^(1-n).
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

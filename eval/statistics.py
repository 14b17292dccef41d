"""Uncertainty of scores: standard errors, and seeded, vectorised bootstrap intervals paired by prompt.

Draws are prompts. Images of one prompt at several seeds are not independent, so if `groups` gives the prompt
of each image, prompts are resampled together with all of their images.
"""

import math
from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fovea.eval.interval import FAILURE, Interval, Worse, studentised

Array = NDArray[np.float64]
Values = Sequence[float] | ArrayLike  # a tuple is not an ArrayLike at run time
Groups = Sequence[Hashable] | NDArray[Any] | None
Pool = Literal["mean", "decibel"]
REPLICATES = 2000
DECIBEL_FAILURE = FAILURE + 1  # a failed image outweighs others in a mean of powers
FEW, MANY = 8, 2000  # numbers of prompts between which intervals use resampling


def pooled(values: Values, weights: Values | None = None, pool: Pool = "mean") -> np.float64 | Array:
    """Pool values (n,), or each column of (n, k), into one score, or one per row of weights (..., n).

    weights: each row sums to n.
    decibel: -10 log10 mean(10^(-x/10)), the decibels of the mean power, in which an infinite value (an error
        of zero) counts like any other.
    """
    x = np.asarray(values, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    if pool == "mean":
        return w @ x / len(x)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(w @ 10 ** (-x / 10) / len(x))


def influence(values: Values, pool: Pool = "mean") -> Array:
    """Return n times the derivative of the pooled score by each image's weight, (n,); the sum is zero."""
    x = np.asarray(values, np.float64)
    if pool == "mean":
        return x - x.mean()
    power = 10 ** (-x / 10)
    mean = power.mean()
    return 10 / math.log(10) * (1 - power / mean) if mean else np.zeros(len(x))


def codes(n: int, groups: Groups) -> tuple[NDArray[np.int64], int]:
    """Return the index (n,) of each image's group, and the number of groups.

    groups: group of each image; if None, each image is its own group.
    """
    if groups is None:
        return np.arange(n), n
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups]), len(number)


def spread(derivative: Values, groups: Groups = None) -> float | None:
    """Return the standard error of a score with this `influence` (n,); None for a single group.

    s / sqrt(n), computed on the sums over groups if there are any.
    """
    d = np.asarray(derivative, np.float64)
    place, g = codes(len(d), groups)
    if g < 2:
        return None
    return float(math.sqrt(g / (g - 1) * (np.bincount(place, d) ** 2).sum()) / len(d))


def standard_error(values: Values, pool: Pool = "mean", groups: Groups = None) -> float | None:
    """Return the standard error s / sqrt(n), by the delta method for decibels; None for a single value."""
    return spread(influence(values, pool), groups)


class Resampled:
    """Scores of k columns of values (n, k) of the same images, and of joint resamples of their prompts.

    A resample is the number of times each prompt was drawn; all columns use the same ones.

    value: scores (k,).
    prompts: number of prompts.
    """

    def __init__(self, values: Values, pool: Pool = "mean", groups: Groups = None, seed: int = 0):
        x, self.pool, self.seed = np.asarray(values, np.float64), pool, seed
        x = 10 ** (-x / 10) if pool == "decibel" else x
        self.place, self.prompts = codes(len(x), groups)
        self.sizes = np.bincount(self.place, minlength=self.prompts).astype(np.float64)  # (g,)
        self.mean = x.mean(0)  # (k,)
        self.centred = x - self.mean  # (n, k)
        self.sums = np.stack([np.bincount(self.place, c, self.prompts) for c in self.centred.T], 1)
        self.value = self._figure(self.mean)

    @cached_property
    def means(self) -> Array:
        """Means of the resamples, (r, k)."""
        drawn = self._drawn(np.column_stack([self.sums, self.sizes]))
        return self.mean + drawn[:, :-1] / drawn[:, -1:]

    @property
    def drawn(self) -> Array:
        """Scores of the resamples, (r, k)."""
        return self._figure(self.means)

    def error(self, slope: Values) -> float | None:
        """Return the standard error of the sum of scores times slope (k,); None for a single prompt."""
        if self.prompts < 2:
            return None
        return float(
            self._errors(np.asarray(slope, np.float64), self.mean[None], np.ones((1, self.prompts)))[0]
        )

    def errors(self, slope: Values) -> Array:
        """Return the standard error that each resample would give, (r,)."""
        return self._errors(np.asarray(slope, np.float64), self.means, None)

    def interval(self, slope: Values, level: float = 0.95, worse: Worse | None = None) -> Interval:
        """Return the interval, with p, of the sum of scores times slope (k,)."""
        slope = np.asarray(slope, np.float64)
        value, error = _combined(self.value, slope), self.error(slope)
        if error is None or not math.isfinite(value):
            return Interval(value, value, value, 0.0)
        ratios = np.array([])
        if error and self.resampling:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = (_combined(self.drawn, slope) - value) / self.errors(slope)
        failing = self.failing(slope, error) if worse and error else {}
        return studentised(value, error, ratios, self.prompts, level, worse, **failing)

    def failing(self, slope: Array, error: float) -> dict[str, float]:
        """Return `studentised`'s arguments on unobserved failures. error: standard error of the score."""
        by_prompt = self.sums @ (slope * self._scale(self.mean))
        spread = float((by_prompt**2).mean()) ** 1.5
        return {
            "failure": DECIBEL_FAILURE if self.pool == "decibel" else FAILURE,
            "size": self._alone(slope, error),
            "skewness": float((by_prompt**3).mean()) / spread if spread else 0.0,
        }

    def _alone(self, slope: Array, error: float) -> float:
        """Return the effective number of independent images per prompt: 1 if all are alike."""
        alone = spread(self.centred @ (slope * self._scale(self.mean)))
        many = float(self.sizes.mean())
        return min(max(many * ((alone or 0.0) / error) ** 2, 1.0), many)

    def _scale(self, means: Array) -> Any:
        """Return the derivative of the scores by the means."""
        return -10 / math.log(10) / means if self.pool == "decibel" else 1.0

    @property
    def resampling(self) -> bool:
        """With fewer prompts too many resamples coincide; with more, means are normal anyway."""
        return FEW <= self.prompts <= MANY

    def _figure(self, mean: Array) -> Array:
        with np.errstate(divide="ignore"):
            return -10 * np.log10(mean) if self.pool == "decibel" else mean

    def _drawn(self, columns: NDArray[Any], counts: Array | None = None) -> Array:
        """Return the columns (g, m) summed by the number of times each prompt was drawn, (r, m)."""
        drawn: NDArray[Any] = _counts(self.prompts, REPLICATES, self.seed) if counts is None else counts
        step = max(1, 2 * 10**6 // self.prompts)  # a few megabytes at once
        return np.concatenate([drawn[i : i + step] @ columns for i in range(0, len(drawn), step)])

    def _errors(self, slope: Array, means: Array, counts: Array | None) -> Array:
        """Compute standard errors from sums over prompts of squared residuals.

        The residuals are linear in the prompts' sizes and the columns' sums.
        """
        used = np.flatnonzero(slope)
        columns = np.column_stack([self.sizes, self.sums[:, used]])  # (g, m)
        with np.errstate(divide="ignore", invalid="ignore"):
            by = (
                slope[used] * self._scale(means[:, used]) * np.ones_like(means[:, used])
            )  # (r, m - 1): derivative by each column's mean
            by = np.column_stack([-(by * (means - self.mean)[:, used]).sum(1), by])
            pairs = list(combinations_with_replacement(range(columns.shape[1]), 2))
            products = np.column_stack([columns[:, i] * columns[:, j] for i, j in pairs] + [self.sizes])
            total = self._drawn(products, counts)
            squares = sum(
                (1 + (i != j)) * by[:, i] * by[:, j] * total[:, at] for at, (i, j) in enumerate(pairs)
            )
            g = self.prompts
            return np.sqrt(np.maximum(g / (g - 1) * squares, 0)) / total[:, -1]


def _combined(figures: Array, slope: Array) -> Any:
    """Return the sum (...,) of scores (..., k) times slope; scores with slope 0 may be infinite."""
    used = slope != 0
    return figures[..., used] @ slope[used]


@lru_cache(maxsize=2)
def _counts(g: int, replicates: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each of g prompts appears in g draws with replacement, (replicates, g)."""
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), size=replicates)
    return drawn.astype(np.uint16)


def mean_interval(
    values: Values,
    pool: Pool = "mean",
    groups: Groups = None,
    level: float = 0.95,
    worse: Worse | None = None,
) -> Interval:
    """Return the pooled score of values (n,) with its interval; a single value has no bounds.

    See `studentised`.
    """
    return Resampled(np.asarray(values, np.float64)[:, None], pool, groups).interval([1.0], level, worse)


def paired_difference(
    a: Values,
    b: Values,
    *,
    pool: Pool = "mean",
    level: float = 0.95,
    seed: int = 0,
    groups: Groups = None,
    worse: Worse | None = "low",
) -> Interval:
    """Return a minus b, with interval and p, from per-image values (n,) of the same keys, resampled together.

    worse: side on which a may have failures that no image here shows, see `studentised`; `either` if b may
        have them too; None to ignore them, as is always done for decibels.

    A single prompt gives no bounds. Raises ValueError if lengths differ or either score is infinite.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"a paired difference needs as many values of each, not {x.shape} and {y.shape}")
    if np.array_equal(x, y):
        alone = len(x if groups is None else set(groups)) < 2
        return Interval(0.0, 0.0, 0.0, 0.0, None) if alone else Interval(0.0, 0.0, 0.0, level, 1.0)
    if not np.isfinite([pooled(x, pool=pool), pooled(y, pool=pool)]).all():
        identical = "no difference in decibels to images that are all identical to the dense ones"
        raise ValueError(identical if pool == "decibel" else "no difference to what is not finite")
    both = Resampled(np.stack([x, y], 1), pool, groups, seed)
    return both.interval([1, -1], level, worse if pool == "mean" else None)

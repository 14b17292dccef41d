"""Errors and intervals against closed forms; their coverage is in test_coverage.py."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import skew, t, ttest_rel

from fovea.eval.interval import (
    FAILURE,
    Interval,
    farther,
    median_interval,
    student,
    studentised,
    two_sided,
)
from fovea.eval.statistics import (
    Resampled,
    influence,
    mean_interval,
    paired_difference,
    pooled,
    spread,
    standard_error,
)

RNG = np.random.default_rng(0)


def test_standard_error_is_s_over_root_n():
    assert standard_error([1, 2, 3, 4]) == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert standard_error([5]) is None


def test_decibels_pool_as_powers_and_infinity_as_no_power():
    assert pooled([10, 20], pool="decibel") == pytest.approx(-10 * math.log10((0.1 + 0.01) / 2))
    assert pooled([20, math.inf], pool="decibel") == pytest.approx(20 + 10 * math.log10(2))
    assert pooled([math.inf], pool="decibel") == math.inf
    assert standard_error([20, 20, 20], "decibel") == 0
    assert standard_error([math.inf, math.inf], "decibel") == 0


def test_decibel_error_is_the_spread_of_its_bootstrap():
    x = RNG.normal(25, 2, 400)
    found = Resampled(x[:, None], "decibel")
    assert standard_error(x, "decibel") == pytest.approx(found.drawn.std(), rel=0.1)
    assert found.error([1.0]) == pytest.approx(standard_error(x, "decibel"))


@pytest.mark.parametrize("pool", ["mean", "decibel"])
def test_errors_of_resamples_are_those_of_the_images_they_hold(pool):
    """By hand: draw the prompts as the counts say, and take the standard error of what was drawn."""
    prompts = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7])
    x = RNG.normal(20, 3, (12, 3))
    found, slope = Resampled(x, pool, prompts), np.array([1.0, -0.5, 0.0])
    counts = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=2000)
    for i in range(5):
        drawn = [(g, copy) for g in range(8) for copy in range(counts[i, g])]
        images = [(at, name) for name in drawn for at in np.flatnonzero(prompts == name[0])]
        values, names = x[[at for at, _ in images]], [name for _, name in images]
        assert found.drawn[i] == pytest.approx(pooled(values, pool=pool))
        derivative = sum(s * influence(c, pool) for s, c in zip(slope, values.T, strict=True))
        assert found.errors(slope)[i] == pytest.approx(spread(derivative, names))


def test_resamples_are_seeded():
    x = RNG.normal(size=(12, 2))
    assert np.array_equal(Resampled(x, seed=3).drawn, Resampled(x, seed=3).drawn)
    assert not np.array_equal(Resampled(x, seed=3).drawn, Resampled(x, seed=4).drawn)


def test_interval_of_a_mean_difference_is_students():
    a, b = RNG.normal(1, 1, 40), RNG.normal(0, 1, 40)
    interval = paired_difference(a, b, worse=None)
    half = -stdtrit(39, 0.025) * np.std(a - b, ddof=1) / math.sqrt(40)
    assert interval.value == pytest.approx(np.mean(a - b))
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)
    assert interval.low < interval.value < interval.high


def test_pairing_takes_out_what_both_share():
    prompt = RNG.normal(0, 10, 50)
    interval = paired_difference(prompt + 1, prompt + RNG.normal(0, 0.1, 50))
    assert 0.7 < interval.low < interval.high < 1.2


def test_no_difference_to_itself():
    x = [20, 30, math.inf]
    assert paired_difference(x[:2], x[:2]).low == 0
    interval = paired_difference(x, x, pool="decibel")
    assert interval.value == interval.low == interval.high == 0


def test_paired_difference_refuses_what_it_cannot_give():
    with pytest.raises(ValueError, match="as many"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="identical"):
        paired_difference([math.inf] * 3, [20, 30, 40], pool="decibel")
    with pytest.raises(ValueError, match="no difference to what is not finite"):
        paired_difference([math.inf, 1, 2], [20, 30, 40])


def test_the_interval_by_hand():
    """Ratios whose 95 % quantile is 3: three errors to either side, at most three times Student's."""
    ratios = np.linspace(-1, 1, 2001) * 3 / 0.95
    found = studentised(1.0, 0.1, ratios, 10**6)
    assert (found.low, found.high) == pytest.approx((0.7, 1.3), abs=1e-3)
    assert two_sided(0.3, 0.1 * 3 / 1.96, 10**6) == pytest.approx(
        studentised(0.3, 0.1, ratios, 10**6).p, abs=1e-3
    )
    assert studentised(1.0, 0.1, [math.inf] * 9, 10**6).high == pytest.approx(1 + 0.3 * 1.95996, abs=1e-4)
    assert studentised(1.0, 0.0, [], 9) == Interval(1.0, 1.0, 1.0, 0.95, 0.0)


def test_an_interval_excludes_zero_where_its_p_says_so():
    for seed in range(60):
        a, b = np.random.default_rng(seed).normal(size=(2, 24))
        found = paired_difference(a + 0.5, b, worse=None)
        assert (found.low > 0 or found.high < 0) == (found.p is not None and found.p < 0.05)


def bound_with(x: np.ndarray, failure: float) -> float:
    """The lower one of draws and one more."""
    more = np.append(x, failure)
    return more.mean() - student(len(more), 0.95) * np.std(more, ddof=1) / math.sqrt(len(more))


def bound_with_a_failure(n: int) -> float:
    """In standard errors of the n."""
    x = np.arange(n, dtype=float)
    return -bound_with((x - x.mean()) / np.std(x, ddof=1), -FAILURE) * math.sqrt(n)


def test_the_worse_side_holds_what_one_failure_more_would_do():
    x = RNG.normal(0, 1, 24)
    x = (x - x.mean()) / np.std(x, ddof=1)
    found = paired_difference(x, np.zeros(24))
    assert found.low == pytest.approx(bound_with(x, -FAILURE))
    in_decibels = mean_interval(x, "decibel", worse="low")
    error = Resampled(x[:, None], "decibel").error([1.0]) or 0.0
    reach = -bound_with(x, -FAILURE - 1) * 24**0.5
    assert in_decibels.value - in_decibels.low == pytest.approx(reach * error, rel=1e-6)
    mirrored = paired_difference(-x, np.zeros(24), worse="high")
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert found.high < paired_difference(x, np.zeros(24), worse=None).high


def test_a_failure_among_several_images_of_a_prompt_is_a_smaller_part_of_it():
    """Of four that have nothing in common it is 1 / sqrt(4) as many standard deviations of their means."""
    x = RNG.normal(0, 1, 24)
    x = (x - x.mean()) / np.std(x, ddof=1)
    apart = np.tile([3.0, 1.0, -1.0, -3.0], 24)  # more than prompts that are as good as random have
    found = paired_difference(np.repeat(x, 4) + apart, np.zeros(96), groups=np.repeat(np.arange(24), 4))
    assert found.low == pytest.approx(bound_with(x, -FAILURE / 2))


def test_of_two_that_may_fail_it_is_the_side_of_the_longer_tail():
    """By hand, of draws without ratios: Student's quantiles, and the bound of one failure more."""
    more, one_sided = bound_with_a_failure(24), -stdtrit(23, 0.05)

    def reach(skewness: float, n: int = 24, size: float = 1.0) -> tuple[float, float]:
        found = studentised(0.0, 1.0, [], n, worse="either", size=size, skewness=skewness * math.sqrt(6 / n))
        return -found.low, found.high

    assert reach(-1) == pytest.approx((more, one_sided), rel=0.02)
    assert reach(1) == pytest.approx((one_sided, more), rel=0.02)
    assert reach(0.1) == reach(-0.1) == pytest.approx((more, more))
    for shown in (reach(2), reach(-1, n=60), reach(-1, size=3)):  # failures are there, or would be
        assert shown[0] == pytest.approx(shown[1])
        assert shown[0] < 2.1


def test_the_skewness_is_that_of_the_prompts():
    x = RNG.exponential(size=(24, 1)) ** 2
    found = Resampled(np.repeat(x, 2, 0), groups=np.repeat(np.arange(24), 2))
    assert found.failing(np.ones(1), found.error([1.0]) or 0.0)["skewness"] == pytest.approx(skew(x[:, 0]))


def test_p_of_a_value_as_far_again_is_that_of_twice_as_many_errors():
    assert farther(two_sided(1.3, 1.0, 24), 2, 24) == pytest.approx(two_sided(2.6, 1.0, 24))


def test_median_lies_between_order_statistics():
    """By hand of six: the outer pair misses with 2/64, the next with 14/64, .05 is a tenth of the way, which
    is 5 x .1 / (1 + 4 x .1) of the first gap."""
    six = median_interval([6, 1, 5, 2, 4, 3])
    assert (six.value, six.level) == (3.5, 0.95)
    assert (six.low, six.high) == pytest.approx((1 + 5 / 14, 6 - 5 / 14))
    skewed = median_interval([0, 1, 10, 11, 12, 13])
    assert (skewed.low, skewed.high) == pytest.approx((5 / 14, 13 - 5 / 14))


def test_median_interval_is_exact_at_the_levels_that_a_pair_has():
    for n, k in ((9, 1), (24, 6)):
        level = 1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        found = median_interval(range(n), level - 1e-12)
        assert (found.low, found.high) == pytest.approx((k, n - 1 - k))


def test_few_values_have_their_range_and_its_true_level():
    three = median_interval([3, 1, 2])
    assert (three.low, three.value, three.high, three.level) == (1, 2, 3, 0.75)
    assert median_interval([2.0]).level == 0
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


@pytest.mark.parametrize("n", [6, 8, 11, 24])
def test_median_interval_covers_what_it_says(n):
    draws = np.random.default_rng(5).exponential(size=(4000, n))
    hits = np.mean([i.low <= math.log(2) <= i.high for i in map(median_interval, draws)])
    assert hits == pytest.approx(0.95, abs=0.012)


def test_p_is_students_where_there_are_no_resamples():
    a, b = RNG.normal(0.4, 1, 2100), RNG.normal(0.3, 1, 2100)
    assert paired_difference(a, b).p == pytest.approx(ttest_rel(a, b).pvalue)
    assert paired_difference(a, a).p == 1
    assert two_sided(1.0, 0.0, 9) == 0


@pytest.mark.parametrize("n", [5, 2100])
def test_mean_interval_is_students_of_few_and_of_many(n):
    x = RNG.normal(5, 2, n)
    low, high = t.interval(0.95, n - 1, x.mean(), np.std(x, ddof=1) / math.sqrt(n))
    found = mean_interval(x)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_interval([3.0]).level == 0


def test_images_of_one_prompt_count_as_one_draw():
    """Several seeds of a prompt that agree say no more than one of them."""
    prompts = np.repeat(np.arange(10), 4)
    one = RNG.normal(size=10)
    assert standard_error(one[prompts], groups=prompts) == pytest.approx(standard_error(one))
    assert mean_interval(one[prompts], groups=prompts).high == pytest.approx(mean_interval(one).high)
    b = np.zeros(10)
    each, single = paired_difference(one[prompts], b[prompts], groups=prompts), paired_difference(one, b)
    assert (each.low, each.p) == pytest.approx((single.low, single.p))


def test_groups_of_one_are_no_groups():
    x, y = RNG.normal(size=(2, 15))
    assert paired_difference(x, y, groups=range(15)) == paired_difference(x, y)


def test_one_prompt_or_image_has_a_difference_without_bounds():
    x, y = RNG.normal(size=(2, 15))
    for found in (paired_difference(x, y, groups=["p"] * 15), paired_difference(x[:1], y[:1])):
        assert (found.low, found.high, found.level, found.p) == (found.value, found.value, 0.0, None)


@pytest.mark.parametrize("n", [8, 9, 12, 16])
@pytest.mark.parametrize("worse", ["low", "either"])
def test_intervals_cover_where_most_images_are_equal(n, worse):
    """Four differences in five are zero, the others one up or down: two of eight on one side are chance."""
    draw, missed, runs = np.random.default_rng(n), 0, 300
    for _ in range(runs):
        x = (draw.random(n) < 0.2) * draw.choice([-1.0, 1.0], n)
        found = paired_difference(x, np.zeros(n), worse=worse)
        missed += not found.low <= 0 <= found.high
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)

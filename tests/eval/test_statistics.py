"""Errors and intervals against closed forms, and their coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import t, ttest_rel

from fovea.eval.interval import basic, median_interval, two_sided
from fovea.eval.statistics import mean_interval, paired_difference, pooled, resamples, standard_error

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
    spread = pooled(x, resamples(400), "decibel").std()
    assert standard_error(x, "decibel") == pytest.approx(spread, rel=0.1)


def test_resamples_are_seeded_and_draw_n_of_n():
    w = resamples(7, 50, seed=3)
    assert (w.sum(1) == 7).all()
    assert np.array_equal(w, resamples(7, 50, seed=3))
    assert not np.array_equal(w, resamples(7, 50, seed=4))


def test_interval_of_a_mean_difference_is_students():
    a, b = RNG.normal(1, 1, 40), RNG.normal(0, 1, 40)
    interval = paired_difference(a, b, replicates=10_000)
    half = -stdtrit(39, 0.025) * np.std(a - b, ddof=1) / math.sqrt(40)
    assert interval.value == pytest.approx(np.mean(a - b))
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)
    assert interval.low < interval.value < interval.high


def test_pairing_takes_out_what_both_share():
    prompt = RNG.normal(0, 10, 50)
    interval = paired_difference(prompt + 1, prompt + RNG.normal(0, 0.1, 50))
    assert 0.8 < interval.low < interval.high < 1.2


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


@pytest.mark.parametrize("n", [8, 24])
def test_intervals_of_differences_cover_what_they_promise(n):
    hits = 0
    for seed in range(400):
        a, b = np.random.default_rng(seed).normal(size=(2, n))
        interval = paired_difference(a + 0.3, b, replicates=400, seed=seed)
        hits += interval.low <= 0.3 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_basic_interval_undoes_a_bias_that_percentiles_double():
    interval = basic(1.0, np.array([1.9, 2.0, 2.1] * 100), n=10**6)
    assert interval.low == pytest.approx(-0.1, abs=1e-4)
    assert interval.high == pytest.approx(0.1, abs=1e-4)


def test_median_lies_between_order_statistics():
    six = median_interval([6, 1, 5, 2, 4, 3])
    assert (six.value, six.low, six.high) == (3.5, 1, 6)
    assert six.level == pytest.approx(1 - 2 / 64)
    nine = median_interval(range(9))
    assert (nine.low, nine.high) == (1, 7)
    assert nine.level == pytest.approx(1 - 2 * (1 + 9) / 512)


def test_few_values_have_their_range_and_its_true_level():
    three = median_interval([3, 1, 2])
    assert (three.low, three.value, three.high, three.level) == (1, 2, 3, 0.75)
    assert median_interval([2.0]).level == 0
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def test_median_interval_covers_at_least_its_level():
    draws = np.random.default_rng(5).exponential(size=(2000, 11))
    intervals = [median_interval(x) for x in draws]
    hits = np.mean([i.low <= math.log(2) <= i.high for i in intervals])
    assert intervals[0].level >= 0.95
    assert hits == pytest.approx(intervals[0].level, abs=0.015)


def test_p_is_students():
    a, b = RNG.normal(0.4, 1, 30), RNG.normal(0, 1, 30)
    assert paired_difference(a, b).p == pytest.approx(ttest_rel(a, b).pvalue)
    assert paired_difference(a, a).p == 1
    assert two_sided(1.0, 0.0, 9) == 0


def test_mean_interval_is_students():
    x = RNG.normal(5, 2, 12)
    low, high = t.interval(0.95, 11, x.mean(), np.std(x, ddof=1) / math.sqrt(12))
    found = mean_interval(x)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_interval([3.0]).level == 0


def test_images_of_one_prompt_count_as_one_draw():
    """Several seeds of a prompt that agree say no more than one of them."""
    prompts = np.repeat(np.arange(10), 4)
    one = RNG.normal(size=10)
    assert standard_error(one[prompts], groups=prompts) == pytest.approx(standard_error(one))
    assert mean_interval(one[prompts], groups=prompts).high == pytest.approx(mean_interval(one).high)
    weights = resamples(40, 100, groups=prompts)
    assert np.allclose(weights.sum(1), 40)
    assert (weights.reshape(100, 10, 4) == weights.reshape(100, 10, 4)[:, :, :1]).all()
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


def test_intervals_over_seeds_of_few_prompts_cover():
    hits, prompts = [], np.repeat(np.arange(12), 3)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x = rng.normal(0.3, 1, 12)[prompts] + rng.normal(0, 0.5, 36)
        interval = paired_difference(x, np.zeros(36), replicates=400, groups=prompts)
        hits.append(interval.low <= 0.3 <= interval.high)
    assert 0.92 <= np.mean(hits) <= 0.98

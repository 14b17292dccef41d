"""Holm's correction against the definition and by simulation; verdicts on every side of a limit."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from fovea.eval.decisions import differs, holm, verdict
from fovea.eval.interval import Interval


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before it."""
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert list(found) == ["c", "a", "d", "b"]
    assert holm({"x": 0.7, "y": 0.9}) == {"x": 1.0, "y": 1.0}
    assert holm({}) == {}


def test_a_table_without_differences_errs_in_one_of_twenty():
    """Forty comparisons that share their prompts, as the cells of a table do."""
    corrected, plain = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(24, 40)) + rng.normal(size=(24, 1))
        p = dict(enumerate(ttest_1samp(x, 0).pvalue))
        plain.append(min(p.values()) <= 0.05)
        corrected.append(min(holm(p).values()) <= 0.05)
    assert np.mean(plain) > 0.35
    assert np.mean(corrected) <= 0.07


@pytest.mark.parametrize(
    ("low", "high", "better", "limit", "said"),
    [
        (-0.2, 0.1, "higher", -0.3, "non-inferior"),
        (-0.4, 0.1, "higher", -0.3, "undecided"),
        (-0.9, -0.4, "higher", -0.3, "inferior"),
        (0.5, 0.9, "higher", -0.3, "non-inferior"),
        (-0.1, 0.2, "lower", 0.3, "non-inferior"),
        (-0.1, 0.4, "lower", 0.3, "undecided"),
        (0.4, 0.9, "lower", 0.3, "inferior"),
        (31.0, 33.0, "higher", 30.0, "non-inferior"),
    ],
)
def test_verdicts(low, high, better, limit, said):
    assert verdict(Interval((low + high) / 2, low, high, 0.95), better, limit) == said


def test_no_bounds_no_verdict():
    assert verdict(Interval(5.0, float("nan"), float("nan"), 0.0), "higher", 1.0) == "undecided"
    assert verdict(Interval(5.0, 5.0, 5.0, 0.0), "higher", 1.0) == "undecided"


def test_a_difference_needs_both_a_p_that_survives_and_an_interval_without_zero():
    wide, narrow = Interval(1.0, -0.1, 2.0, 0.95), Interval(-1.0, -2.0, -0.1, 0.95)
    assert differs(narrow, 0.01)
    assert not any(differs(*pair) for pair in [(wide, 0.01), (narrow, 0.06), (None, 0.01), (narrow, None)])

"""KID against its definition, pair by pair; its errors; the subsets of torch-fidelity."""

import numpy as np
import pytest

from fovea.eval.kid import kernel_sums, pseudo_values, subset_kids, within
from fovea.eval.statistics import paired_difference, standard_error


def features(n, d=16, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.linspace(2, 0.2, d) + shift * np.eye(d)[0]


def by_pairs(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    def over(a, b, distinct):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not distinct or i != j]
        return np.mean([k(a[i], b[j]) for i, j in pairs])

    return over(x, x, True) + over(y, y, True) - 2 * over(x, y, False)


def test_is_the_sum_over_pairs():
    x, y = features(9), features(13, seed=1, shift=0.5)
    assert pseudo_values(x, y).mean() == pytest.approx(by_pairs(x, y), rel=1e-12)


def test_what_an_image_adds_is_its_pseudo_value():
    x, y = features(9), features(13, seed=1, shift=0.5)
    each = pseudo_values(x, y)
    for i in range(9):
        assert each[i] == pytest.approx(9 * by_pairs(x, y) - 8 * by_pairs(np.delete(x, i, 0), y), rel=1e-9)


def test_rows_are_taken_in_parts(monkeypatch):
    x, y = features(50), features(70, seed=1)
    expected = pseudo_values(x, y)
    monkeypatch.setattr("fovea.eval.kid.ROWS", 16)
    assert np.allclose(pseudo_values(x, y), expected, rtol=1e-12)
    assert np.allclose(within(y), [(kernel_sums(y[[i]], np.delete(y, i, 0)) / 69)[0] for i in range(70)])


def test_is_unbiased_at_any_n():
    """Against the reference set as given, whose own pairs are those of its images."""
    y = features(60, seed=99, shift=1.0)
    few, more = ([pseudo_values(features(n, seed=s), y).mean() for s in range(400)] for n in (4, 40))
    assert np.mean(few) == pytest.approx(np.mean(more), abs=3 * np.std(few) / 20)


@pytest.mark.parametrize(("shift", "low", "high"), [(1.5, 0.85, 1.15), (0.0, 0.95, 1.5)])
def test_the_standard_error_is_the_spread_over_repetitions(shift, low, high):
    """Too large by at most the square root of 2 where the sets agree, as the jackknife's is."""
    y = features(300, seed=99)
    draws = [pseudo_values(features(40, seed=s, shift=shift), y) for s in range(200)]
    spread = np.std([x.mean() for x in draws])
    assert low < np.mean([standard_error(x) for x in draws]) / spread < high


def test_the_interval_of_a_difference_covers_it():
    y, pairs = features(100, seed=999), []
    for s in range(150):
        dense = features(40, seed=s)
        method = dense + 0.3 * features(40, seed=1000 + s, shift=1.0)
        pairs.append((pseudo_values(method, y), pseudo_values(dense, y)))
    expected = np.mean([a.mean() - b.mean() for a, b in pairs])
    bounds = [paired_difference(a, b) for a, b in pairs]
    assert 0.9 <= np.mean([b.low <= expected <= b.high for b in bounds]) <= 1


def test_subsets_are_drawn_as_by_others():
    """torch-fidelity draws of the images and then of the reference, from one RandomState, as clean-fid does
    of its arguments the other way round."""
    from cleanfid.fid import kernel_distance

    x, y = features(40), features(60, seed=1, shift=0.5)
    np.random.seed(2020)
    expected = kernel_distance(y, x, num_subsets=7, max_subset_size=12)
    assert subset_kids(x, y, 7, 12, 2020).mean() == pytest.approx(expected, rel=1e-12)


def test_subsets_fluctuate_about_all_pairs():
    x, y = features(60), features(80, seed=1, shift=1.0)
    found = subset_kids(x, y, 2000, 20, 0)
    error = found.std() / np.sqrt(2000)
    assert abs(found.mean() - pseudo_values(x, y).mean()) < 4 * error
    everything = subset_kids(x, y[:60], 2, 60, 0)
    assert everything == pytest.approx(pseudo_values(x, y[:60]).mean(), rel=1e-9)

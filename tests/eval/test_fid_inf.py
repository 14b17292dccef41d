"""FID at infinite n: the line, its error, and what is left of the bias."""

import numpy as np
import pytest

from fovea.eval import Unavailable
from fovea.eval.fid_inf import FIDInfinity, at_infinity, extrapolated
from fovea.eval.frechet import Gaussian, contributions, fit
from fovea.eval.statistics import standard_error
from tests.eval.frechet import frechet_distance

D = 24
SPECTRUM = 8 / np.arange(1, D + 1) / np.sum(1 / np.arange(1, D + 1))


def draw(n, seed, scale=1.2, shift=0.3):
    x = np.random.default_rng(seed).normal(size=(n, D)) * np.sqrt(scale * SPECTRUM)
    return x + shift * np.eye(D)[0]


TRUTH = Gaussian(np.zeros(D), np.diag(np.sqrt(SPECTRUM)))
DISTANCE = 0.3**2 + (SPECTRUM * (np.sqrt(1.2) - 1) ** 2).sum()


def test_the_weights_read_a_least_squares_line_at_zero():
    sizes, values = np.array([50, 60, 75, 100]), np.array([3.0, 2.9, 2.5, 2.6])
    _, intercept = np.polyfit(1 / sizes, values, 1)
    assert at_infinity(sizes) @ values == pytest.approx(intercept, rel=1e-10)
    assert at_infinity(sizes) @ (7 + 3 / sizes) == pytest.approx(7, rel=1e-10)


def test_is_the_fit_over_random_subsets():
    x, y, sizes, seed = draw(80, 1), draw(200, 2, 1.0, 0.0), np.array([40, 60, 80]), 5
    rng = np.random.default_rng(seed)
    values = [frechet_distance(x[rng.permutation(80)[:size]], y) for size in sizes]
    expected = np.polyfit(1 / sizes, values, 1)[1]
    assert extrapolated(x, fit(y), sizes, seed).mean() == pytest.approx(expected, rel=1e-9)


def test_an_image_adds_what_its_place_in_every_subset_does():
    x, y, n = draw(60, 1), fit(draw(200, 2, 1.0, 0.0)), 60
    sizes, rng = np.array([30, 60]), np.random.default_rng(3)
    half, every = (rng.permutation(n)[:size] for size in sizes)
    expected = np.zeros(n)
    for weight, subset in zip(at_infinity(sizes), (half, every), strict=True):
        added = contributions(x[subset], y)
        expected[subset] += weight * (n / len(subset) * (added - added.mean()))
    each = extrapolated(x, y, sizes, 3)
    assert each - each.mean() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ratio", [3, 6])
def test_bias_and_standard_error(ratio):
    n = ratio * D
    sizes = np.linspace(n / 2, n, 15).astype(int)
    plain, found, errors = [], [], []
    for seed in range(60):
        x = draw(n, seed)
        each = extrapolated(x, TRUTH, sizes, seed)
        plain.append(contributions(x, TRUTH).mean())
        found.append(each.mean())
        errors.append(standard_error(each))
    assert np.mean(plain) > 2 * DISTANCE
    assert abs(np.mean(found) - DISTANCE) < 0.2 * (np.mean(plain) - DISTANCE)
    assert 0.8 < np.mean(errors) / np.std(found) < 1.3


def test_too_few_images_say_how_many_it_takes():
    sizes = FIDInfinity().sizes(5000)
    assert (len(sizes), sizes[0], sizes[-1]) == (15, 2500, 5000)
    with pytest.raises(Unavailable, match="4096 images are too few") as found:
        FIDInfinity().sizes(4096)
    assert "4097 images" in found.value.remedy
    assert FIDInfinity().sizes(4098)[0] == 2049

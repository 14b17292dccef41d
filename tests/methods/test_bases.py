"""methods/bases.py: what each basis meets exactly, its weights, and cache-dit's calibrators step by step."""

import numpy as np
import pytest
import torch
from cache_dit.caching.cache_contexts.calibrators import DMDCalibrator, FoCaCalibrator, TaylorSeerCalibrator
from numpy.polynomial import chebyshev

from fovea.methods import bases
from fovea.methods.forecast import Differences
from fovea.methods.schedules import growing, refreshes, stretched

EVEN = (0, 1, 2, 5, 8, 11, 14, 17)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def told(basis, steps, f):
    for step in steps:
        basis.update(step, (f(step),))
    return basis


def line(t):
    a, b = torch.randn(2, 3, 5, 4, generator=rng(1)).double()
    return a + t * b


LINEAR = {
    "taylor": Differences(1),
    "taylor_scaled": Differences(2, coefficient=bases.damped_taylor(1.0)),
    "dmd": bases.DynamicModes(),
    "chebyshev": bases.Weighted(bases.spectral(20, 4, 1e-9, shrink_mean=False), include_forecasts=False),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_trajectory_linear_in_the_step_is_met(name, ahead):
    found = told(LINEAR[name], EVEN, line).predict(17 + ahead)[0]
    torch.testing.assert_close(found, line(17 + ahead), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_hermite_at_a_half_misses_it_by_half(ahead):
    found = told(Differences(1, coefficient=bases.hermite(0.5)), EVEN, line).predict(17 + ahead)[0]
    torch.testing.assert_close(found, line(17) + (line(17 + ahead) - line(17)) / 2)


@pytest.mark.parametrize("damping", [0.5, 0.71])
@pytest.mark.parametrize("k", [1, 3])
def test_hermites_polynomials_written_out(damping, k):
    s = damping
    expected = [
        2 * s * s * k,
        (s**2 / 2) * (4 * s * s * k * k - 2),
        s**3 / 6 * (8 * s**3 * k**3 - 12 * s * k),
    ]
    assert [bases.hermite(s)(order, k) for order in (1, 2, 3)] == pytest.approx(expected)


def exponentials(t):
    """Of each image its own three: one real, a pair that oscillates."""
    shapes = torch.randn(3, 3, 20, generator=rng(2)).double()
    rates = torch.tensor([[0.9, 0.97], [0.95, 0.9], [0.8, 1.02]])
    real = rates[:, :1].double() ** t * shapes[:, 0]
    turn = rates[:, 1:].double() ** t
    return real + turn * (np.cos(0.3 * t) * shapes[:, 1] + np.sin(0.3 * t) * shapes[:, 2])


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_exponentials_are_met_by_their_modes(ahead):
    found = told(bases.DynamicModes(), range(0, 18, 3), exponentials).predict(15 + ahead)[0]
    torch.testing.assert_close(found, exponentials(15 + ahead), rtol=1e-5, atol=1e-5)
    taylor = told(Differences(1), range(0, 18, 3), exponentials).predict(15 + ahead)[0]
    assert (taylor - exponentials(15 + ahead)).abs().max() > 0.05


@pytest.mark.parametrize("basis", ["dmd", "foca", "chebyshev"])
def test_an_image_is_forecast_alone(basis):
    make = {
        "dmd": bases.DynamicModes,
        "foca": bases.Foca,
        "chebyshev": lambda: bases.Weighted(
            bases.spectral(20, 4, 0.1, shrink_mean=True), include_forecasts=False
        ),
    }[basis]
    whole = told(make(), range(0, 18, 3), exponentials).predict(17)[0]
    for image in range(3):
        alone = told(make(), range(0, 18, 3), lambda t, image=image: exponentials(t)[image : image + 1])
        torch.testing.assert_close(alone.predict(17)[0][0], whole[image])


LEVELS = [1.0, 0.97, 0.93, 0.88, 0.8, 0.7, 0.55, 0.3, 0.1, 0.0]


@pytest.mark.parametrize("window", [2, 3, 5])
def test_meancache_is_its_formula_on_states(window):
    """From states x, as the authors' code has it: u over the window's way, the slope, one step on."""
    x, v = [torch.zeros(6).double()], []
    basis = bases.Weighted(bases.mean_velocity(LEVELS, window), include_forecasts=True, history=window)
    for i in range(9):
        if i in (0, 1, 2, 5):
            new = torch.randn(6, generator=rng(i)).double()
            basis.update(i, (new,))
        else:
            first = max(i - window, 0)
            way = LEVELS[i] - LEVELS[first]
            mean = (x[i] - x[first]) / way
            new = v[-1] - (v[first] - mean) / way * (LEVELS[i + 1] - LEVELS[i])
            torch.testing.assert_close(basis.predict(i)[0].double(), new, rtol=0, atol=1e-5)
        v.append(new)
        x.append(x[-1] + (LEVELS[i + 1] - LEVELS[i]) * new)


def test_a_window_of_one_is_reuse_bit_for_bit():
    basis = bases.Weighted(bases.mean_velocity(LEVELS, 1), include_forecasts=True, history=1)
    y = torch.randn(4, generator=rng())
    basis.update(2, (y,))
    assert basis.predict(3)[0] is y
    assert basis.predict(4)[0] is y


@pytest.mark.parametrize("window", [2, 3, 5])
@pytest.mark.parametrize("step", [5, 8])
def test_weights_sum_to_one(window, step):
    assert sum(bases.mean_velocity(LEVELS, window)([*range(step)], step)) == pytest.approx(1)
    free = bases.spectral(20, 4, 0.1, shrink_mean=False)
    assert sum(free([0, 1, 2, 3, 4], step)) == pytest.approx(1)
    assert sum(bases.spectral(20, 4, 0.1, shrink_mean=True)([0, 1, 2, 3, 4], step)) < 0.99


def test_even_weights_of_meancache():
    even = [1 - i / 20 for i in range(21)]
    assert bases.mean_velocity(even, 2)([3, 4], 5) == pytest.approx([-0.25, 1.25])
    assert bases.mean_velocity(even, 3)([3, 4, 5], 6) == pytest.approx([-2 / 9, 1 / 9, 10 / 9])


def test_chebyshev_is_ridge_regression():
    """Against numpy: least squares with the penalty as rows of their own."""
    known, steps, lam = [0, 1, 2, 3, 4, 6, 8, 11], 50, 0.1
    y = torch.randn(8, 3, generator=rng()).double()
    design = chebyshev.chebvander(np.array(known) / 25 - 1, 4)
    rows = np.vstack([design, lam**0.5 * np.eye(5)])
    solved = np.linalg.lstsq(rows, np.vstack([y.numpy(), np.zeros((5, 3))]), rcond=None)[0]
    basis = bases.Weighted(bases.spectral(steps, 4, lam, shrink_mean=True), include_forecasts=False)
    for step, value in zip(known, y, strict=True):
        basis.update(step, (value,))
    expected = chebyshev.chebvander(np.array([15 / 25 - 1]), 4) @ solved
    np.testing.assert_allclose(basis.predict(15)[0].numpy(), expected[0], atol=1e-5)


def test_fitted_weights_take_forecasts_for_values():
    table = [(), (1.0,), (-1.0, 2.0), (0.0, -1.0, 2.0), (0.5, 0.0, 0.0, 0.5)]
    basis = bases.Weighted(bases.fitted_weights(table), include_forecasts=True)
    for step, value in ((0, 1.0), (1, 2.0)):
        basis.update(step, (torch.tensor(value),))
    assert [basis.predict(step)[0].item() for step in (2, 3, 4)] == [3.0, 4.0, 2.5]


SCHEDULES = [("even", 20, 3, 3), ("late", 24, 4, 5), ("sparse", 30, 5, 3)]


@pytest.mark.parametrize(("_", "steps", "interval", "warmup"), SCHEDULES)
@pytest.mark.parametrize(
    ("calibrator", "ours", "atol"),
    [
        (TaylorSeerCalibrator(n_derivatives=1), lambda: Differences(1, since=2), 0),
        (TaylorSeerCalibrator(n_derivatives=2), lambda: Differences(2, since=2), 1e-5),
        (FoCaCalibrator(), bases.Foca, 1e-5),
        (DMDCalibrator(history=6), lambda: bases.DynamicModes(since=2), 1e-5),
    ],
)
def test_equals_cache_dits_calibrator_step_by_step(calibrator, ours, atol, _, steps, interval, warmup):
    """On features that turn and fade, with noise. DMD where it has its four snapshots: before, cache-dit's
    line goes through the last value and the last but one, but takes them for neighbours."""
    calibrator.states.clear()
    calibrator.maybe_init_state("default")
    basis, forecasts, ran = ours(), 0, []
    noise = torch.randn(steps, 3, 20, generator=rng(4))
    for step in range(steps):
        calibrator.mark_step_begin()
        if refreshes(step, interval, warmup, "paper"):
            value = exponentials(step).float() + 0.01 * noise[step]
            calibrator.update(value)
            basis.update(step, (value,))
            ran.append(step)
        elif not isinstance(basis, bases.DynamicModes) or len(bases.even_tail(ran)) > 3:
            forecasts += 1
            found, expected = basis.predict(step)[0], calibrator.approximate()
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert forecasts > 5


TWICE = {
    "taylor": lambda: Differences(2),
    "dmd": bases.DynamicModes,
    "foca": bases.Foca,
    "meancache": lambda: bases.Weighted(bases.mean_velocity(LEVELS, 3), include_forecasts=True),
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_of_one_step_told_or_asked_twice_the_last_counts(make):
    """As by Heun's method."""
    values = torch.randn(2, 9, 1, 4, generator=rng(5))
    twice, once = make(), make()
    for step in range(8):
        if step in (0, 1, 2, 5):
            for i in (0, 1):
                twice.update(step, (values[i][step],))
            once.update(step, (values[1][step],))
        else:
            twice.predict(step)
            torch.testing.assert_close(twice.predict(step), once.predict(step))


def test_growing_intervals_are_spectrums():
    """Printed by its authors for 50 steps; 14 and 10 of them."""
    assert growing(50, 5, 0.75) == (*range(5), 6, 8, 11, 15, 20, 25, 31, 38, 46)
    assert growing(50, 5, 3.0) == (*range(5), 6, 11, 19, 30, 44)


def test_a_list_keeps_its_shares_of_the_way():
    assert stretched((0, 1, 2, 4, 9, 17, 26, 35, 43), 50, 50) == (0, 1, 2, 4, 9, 17, 26, 35, 43)
    assert stretched((0, 1, 2, 4, 9, 17, 26, 35, 43), 50, 20) == (0, 1, 2, 4, 7, 10, 14, 17)

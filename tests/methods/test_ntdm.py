"""methods/ntdm.py: the stages' schedules, and that matching them gives the authors' constants."""

import numpy as np
import pytest

from fovea.methods import ntdm
from fovea.methods.ralu_presets import PRESETS

STAGES = ((4, 5, 6), (0.3, 0.45, 1.0))


@pytest.mark.parametrize(
    ("steps", "ends", "shifts", "z"),
    [
        ((5, 6, 7), (0.3, 0.45, 1.0), (5.019, 2.589, 2.226), 6.317),
        ((2, 3, 5), (0.2, 0.3, 1.0), (8.141, 2.856, 2.193), 6.261),
    ],
)
def test_the_constants_of_the_authors_code(steps, ends, shifts, z):
    found, c, distance = ntdm.match_shifts(steps, ends, 3.0)
    assert found == pytest.approx(shifts, abs=1e-3)
    assert c**-0.5 == pytest.approx(z, abs=1e-3)
    assert distance == pytest.approx(ntdm.distance(steps, ends, found, c, 3.0))


@pytest.mark.parametrize("name", ["flux_5x", "flux_7x"])
def test_the_constants_of_the_papers_table(name):
    printed = PRESETS[name]
    found, c, _ = ntdm.match_shifts(printed.steps, printed.ends, 3.0)
    assert [round(shift, 2) for shift in found] == pytest.approx(printed.shifts, abs=0.0101)
    assert round(c, 4) == printed.c


def test_matching_lies_in_a_minimum_over_the_shifts():
    """Over c it need not: on a grid, the distance jumps where a stage's start passes one of its points."""
    shifts, c, least = ntdm.match_shifts(*STAGES, 3.0)
    for i in range(3):
        for factor in (0.9, 1.1):
            moved = [h * factor if j == i else h for j, h in enumerate(shifts)]
            assert ntdm.distance(*STAGES, moved, c, 3.0) > least


def test_one_stage_of_the_schedule_itself_is_at_no_distance():
    assert ntdm.distance((7,), (1.0,), [3.0], 0.02, 3.0) == 0


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.1, 0.45), (0.3, 1.0)])
def test_a_density_integrates_to_one_and_is_that_of_the_schedule(shift, start, end):
    density = ntdm.density(shift, start, end)
    step = ntdm.GRID[1] - ntdm.GRID[0]
    assert (density.sum() - (density[0] + density[-1]) / 2) * step == pytest.approx(1, abs=2e-2)
    assert (density[(start > ntdm.GRID) | (end < ntdm.GRID)] == 0).all()
    # the share of a long schedule's times that lie in the first half of the stretch, counted
    times = 1 - ntdm.sigmas(100_000, shift, start, end)
    half = (start + end) / 2
    assert density[half > ntdm.GRID].sum() / density.sum() == pytest.approx((times < half).mean(), abs=1e-2)


@pytest.mark.parametrize(("steps", "shift", "start", "end"), [(6, 5.019, 0.0, 0.3), (7, 2.2, 0.1, 1.0)])
def test_the_noise_levels_are_even_before_the_shift(steps, shift, start, end):
    """sigma = h u / (1 + (h - 1) u), solved for u: u = sigma / (h - (h - 1) sigma)."""
    levels = ntdm.sigmas(steps, shift, start, end)
    assert levels[[0, -1]] == pytest.approx([1 - start, 1 - end], abs=1e-12)
    u = levels / (shift - (shift - 1) * levels)
    assert np.diff(u) == pytest.approx((u[-1] - u[0]) / steps)
    assert len(levels) == steps + 1


@pytest.mark.parametrize("end", [0.2, 0.3, 0.45])
@pytest.mark.parametrize("c", [0.25, 0.0177, 6.317**-2])
def test_restart_solves_the_papers_equations(end, c):
    """Section 4.2: with delta = (1 - e) / sqrt(c), s = e / (delta + e), a = 1 / (delta + e), and the noise
    added is b = delta / (delta + e) = 1 - s times as strong. Mean and variance are those of time s."""
    start, scale = ntdm.restart(end, c)
    delta = (1 - end) / c**0.5
    assert start == pytest.approx(end / (delta + end))
    assert scale == pytest.approx(1 / (delta + end))
    assert 1 - start == pytest.approx(delta / (delta + end))
    assert start == pytest.approx(scale * end)
    assert scale**2 * (1 - end) ** 2 == pytest.approx((1 - start) ** 2 * c)
    assert start < end


def test_each_stage_starts_where_the_one_before_threw_it_back_to():
    c = 6.317**-2
    stages = ntdm.stages((5, 6, 7), (0.3, 0.45, 1.0), (5.019, 2.589, 2.226), c)
    assert [len(levels) for levels in stages] == [6, 7, 8]
    assert [levels[0] for levels in stages] == pytest.approx([1, 1 - 0.0635, 1 - 0.1147], abs=1e-4)
    assert [levels[-1] for levels in stages] == pytest.approx([0.7, 0.55, 0])
    assert all((np.diff(levels) < 0).all() for levels in stages)

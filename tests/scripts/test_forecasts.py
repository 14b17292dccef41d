"""scripts/forecasts.py: fitted weights and the cheapest steps, against brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch

from fovea.methods import Caching
from fovea.methods.caches import Forecast
from scripts import forecasts
from tests.methods.gaussian import GaussianFlow

LEVELS = [1.0, 0.97, 0.93, 0.88, 0.8, 0.7, 0.55, 0.3, 0.0]


def velocities(images=5, steps=8):
    """Smooth in the step, (steps, images, 30)."""
    a, b, c = np.random.default_rng(0).normal(size=(3, images, 30))
    t = np.arange(steps)[:, None, None] / steps
    return a + b * t**2 + c * np.sin(3 * t)


def gram(v):
    flat = v.reshape(len(v), -1)
    return flat @ flat.T


def test_each_row_predicts_its_step_from_all_before(monkeypatch):
    v = velocities()
    rows = forecasts.table(gram(v))
    assert [len(row) for row in rows] == [*range(8)]
    for i in range(2, 8):
        ours, reuse = (np.square(x - v[i]).sum() for x in (np.tensordot(rows[i], v[:i], 1), v[i - 1]))
        assert ours < reuse
    monkeypatch.setattr(forecasts, "RIDGE", 1e-9)
    exact = forecasts.table(gram(v))
    for i in range(3, 8):  # three shapes: from three steps on, all is known
        np.testing.assert_allclose(np.tensordot(exact[i], v[:i], 1), v[i], atol=1e-3)
    Forecast("fitted", table=tuple(map(tuple, rows)))


@pytest.mark.parametrize("budget", [2, 3, 5, 8])
def test_the_cheapest_steps_are_those_of_all_choices(budget):
    v = velocities()
    ways = np.diff(LEVELS)

    def cost(full):
        """By reuse of each velocity, step by step."""
        total = 0.0
        for last, end in zip(full, [*full[1:], 8], strict=True):
            off = sum((ways[k] * (v[last] - v[k]) for k in range(last + 1, end)), np.zeros(v.shape[1:]))
            total += np.square(off).sum()
        return total

    best = min(combinations(range(1, 8), budget - 1), key=lambda rest: cost((0, *rest)))
    found = forecasts.cheapest(gram(v), LEVELS, budget)
    assert cost(found) == pytest.approx(cost((0, *best)))
    assert len(found) == budget


def test_they_are_what_the_schedule_takes():
    full = tuple(forecasts.cheapest(gram(velocities()), LEVELS, 4))
    flow = GaussianFlow()
    x = Caching(Forecast(schedule="dp", full=full, of=8), steps=8)(flow)
    assert len(flow.evaluated) == 4
    assert torch.isfinite(x).all()

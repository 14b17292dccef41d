"""methods/drift.py: its ingredients switched off are what they are put together from."""

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import Baseline, Caching, Drift
from fovea.methods.caches import Forecast
from tests.methods.gaussian import GaussianFlow
from tests.methods.test_jit import GridFlow
from tests.methods.test_ras import LineFlow

FULL = {"full": (0, 1, 4, 8), "of": 12}


def traced(method, flow):
    steps = []
    x = method(flow, on_step=lambda **step: steps.append(step))
    return x, steps


@pytest.mark.parametrize("settings", [{}, FULL, {"damping": 0.3}])
def test_off_is_the_baseline_bit_for_bit(settings):
    x = Drift(steps=12, **settings | Drift.off)(GridFlow())
    assert torch.equal(x, Baseline(steps=12)(GridFlow()))


def test_without_tokens_and_damping_it_is_the_forecast_bit_for_bit():
    cache = Forecast(schedule="dp", phase="paper", warmup=3, **FULL)
    x = Drift(steps=12, **FULL)(GridFlow())
    assert torch.equal(x, Caching(cache, steps=12)(GridFlow()))


@pytest.mark.parametrize("selection", ["error", "random", "oracle"])
def test_a_share_of_the_tokens_runs_between_dense_steps(selection):
    flow = GridFlow()
    _, steps = traced(Drift(steps=12, ratio=0.25, selection=selection, **FULL), flow)
    looks = [64, 16] if selection == "oracle" else [16]
    expected = [ran for i in range(12) for ran in ([64] if i in (0, 1, 4, 8) else looks)]
    assert flow.evaluated == expected
    assert [i for i, step in enumerate(steps) if step["rows"] is None] == [0, 1, 4, 8]


@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_a_line_is_met_exactly(ratio):
    flow = LineFlow()
    _, steps = traced(Drift(steps=12, ratio=ratio, **FULL), flow)
    for step in steps[4:]:  # the first slope is that of steps 1 and 4
        torch.testing.assert_close(step["v"], flow.line(step["i"]).expand(2, -1, -1), rtol=0, atol=2e-5)


def test_damping_grows_with_the_age():
    flow = LineFlow()
    _, steps = traced(Drift(steps=12, damping=0.5, **FULL), flow)
    last, slope = flow.line(4), flow.line(5) - flow.line(4)
    for ahead in (1, 2, 3):
        expected = last + slope * ahead * torch.exp(torch.tensor(-0.5 * (ahead - 1)))
        torch.testing.assert_close(steps[4 + ahead]["v"][0], expected, rtol=0, atol=2e-5)


def test_what_a_token_found_stays_until_the_next_dense_step():
    """The oracle's choice is of what it is about to miss; tokens that ran once are right on from there."""

    class Shifted(LineFlow):
        """One token leaves the line at step 5 for good."""

        def line(self, i):
            v = super().line(i).clone()
            v[3] += 5.0 * (i >= 5)
            return v

    flow = Shifted()
    _, steps = traced(Drift(steps=12, ratio=1 / 64, selection="oracle", **FULL), flow)
    assert steps[5]["rows"].tolist() == [[3], [3]]
    for i in (5, 6, 7):
        torch.testing.assert_close(steps[i]["v"][0], flow.line(i), rtol=0, atol=5e-5)


def test_tokens_run_whose_forecast_missed_most_by_its_age():
    """All are known at the dense steps: those that change most run, each once before any runs again."""
    flow = GaussianFlow()
    _, steps = traced(Drift(steps=12, ratio=0.25, **FULL), flow)
    assert all(len(step["rows"][0].unique()) == 16 for step in steps if step["rows"] is not None)
    assert not torch.equal(steps[5]["rows"].sort().values, steps[6]["rows"].sort().values)


def test_an_image_does_not_depend_on_its_batch():
    method = Drift(steps=12, ratio=0.25, **FULL)
    both = method(GridFlow(seeds=(0, 1)))
    torch.testing.assert_close(method(GridFlow(seeds=(1,)))[0], both[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"full": (0, 1)}, {"of": 4}, {"full": (1, 2), "of": 4}, {"full": (0, 4), "of": 4}, {"ratio": 2}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Drift(**wrong)

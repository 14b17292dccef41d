"""methods/multistep.py; the fit of its weights: tests/scripts/test_multistep.py."""

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import Baseline, Caching, Multistep
from fovea.methods.caches import Forecast
from tests.methods.gaussian import GaussianFlow
from tests.methods.test_jit import GridFlow

NODES = (0, 1, 4, 8)
KEEP = tuple((0.0,) * j + (1.0,) for j in range(4))  # the last velocity until the next node


@pytest.mark.parametrize("settings", [{}, {"nodes": NODES, "of": 12, "weights": KEEP}])
def test_off_is_the_baseline_bit_for_bit(settings):
    x = Multistep(steps=12, **settings | Multistep.off)(GridFlow())
    assert torch.equal(x, Baseline(steps=12)(GridFlow()))


def test_keeping_the_last_velocity_is_the_cache_of_reuse_bit_for_bit():
    reuse = Forecast(basis="reuse", schedule="dp", full=NODES, of=12)
    x = Multistep(steps=12, nodes=NODES, of=12, weights=KEEP)(GridFlow())
    assert torch.equal(x, Caching(reuse, steps=12)(GridFlow()))


def test_the_model_runs_at_the_nodes_alone():
    flow, told = GridFlow(), []
    method = Multistep(steps=12, nodes=NODES, of=12, weights=KEEP)
    method(flow, on_step=lambda **step: told.append(step))
    assert flow.evaluated == [64] * 4
    assert [step["i"] for step in told if step["rows"] is None] == list(NODES)
    assert {step["rows"].shape for step in told if step["rows"] is not None} == {(2, 0)}


def test_an_image_does_not_depend_on_its_batch():
    method = Multistep(steps=12, nodes=NODES, of=12, weights=KEEP)
    both = method(GaussianFlow(seeds=(0, 1)))
    assert torch.equal(method(GaussianFlow(seeds=(1,)))[0], both[1])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"nodes": None}, "python -m scripts.calibrate"),
        ({"weights": None}, "python -m scripts.calibrate"),
        ({"nodes": (1, 2, 4, 8)}, "must ascend from 0"),
        ({"nodes": (0, 4, 2, 8)}, "must ascend from 0"),
        ({"nodes": (0, 1, 4, 12)}, "less than of=12"),
        ({"weights": KEEP[:3]}, "4 rows of 1, 2, ..."),
        ({"weights": (*KEEP[:3], (1.0,))}, "4 rows of 1, 2, ..."),
        ({"steps": 20}, "fitted to runs of 12 steps"),
    ],
)
def test_wrong_settings_are_refused(wrong, why):
    with pytest.raises(ValidationError, match=why):
        Multistep(**{"nodes": NODES, "of": 12, "weights": KEEP} | wrong)


def test_a_run_of_other_steps_is_refused():
    class Twenty(GridFlow):
        def sigmas(self, steps):
            return super().sigmas(steps or 20)

    with pytest.raises(ValueError, match="steps=20: the weights are fitted to runs of 12 steps"):
        Multistep(nodes=NODES, of=12, weights=KEEP)(Twenty())

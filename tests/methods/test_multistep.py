"""methods/multistep.py, and the fit of its weights in scripts/multistep.py."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fovea.methods import Baseline, Caching, Multistep
from fovea.methods.caches import Forecast
from scripts.multistep import RIDGE, least_squares, weights
from tests.methods.gaussian import GaussianFlow
from tests.methods.test_jit import GridFlow
from tests.methods.test_ras import LineFlow

NODES = (0, 1, 4, 8)
KEEP = tuple((0.0,) * j + (1.0,) for j in range(4))  # the last velocity until the next node


def dense(flow):
    """The states of the dense run of 12 steps, from the noise on."""
    run = [flow.noise()]
    flow.noise = lambda: run[0]
    Baseline(steps=12)(flow, on_step=lambda x, **_: run.append(x))
    return run


def fitted(*flows):
    runs = [dense(flow) for flow in flows]
    rows = weights(flows, runs, NODES)
    return Multistep(steps=12, nodes=NODES, of=12, weights=tuple(map(tuple, rows))), runs


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


def test_a_line_is_followed_to_its_end():
    """Two velocities give a line; from the second node on, what was missed before is made up for."""
    method, (run,) = fitted(LineFlow())
    flow = LineFlow()
    flow.noise = lambda: run[0]
    torch.testing.assert_close(method(flow), run[-1], rtol=0, atol=2e-3)


def test_fitted_weights_are_nearer_to_the_dense_run_than_forecasts_on_other_images():
    method, _ = fitted(GridFlow(seeds=(0, 1)), GridFlow(seeds=(2, 3)))
    goal = Baseline(steps=12)(GridFlow(seeds=(4, 5)))

    def missed(method):
        return (method(GridFlow(seeds=(4, 5))) - goal).norm()

    others = [
        Caching(Forecast(basis=basis, schedule="dp", full=NODES, of=12), steps=12)
        for basis in ("reuse", "taylor", "taylor_scaled", "meancache")
    ]
    assert missed(method) < 0.5 * min(map(missed, others))


def test_the_weights_are_those_of_least_squares():
    """At a ridge that hardly matters; images of several batches count alike."""
    v, goal = torch.randn(3, 4, 8, 16), torch.randn(4, 8, 16)
    found = least_squares([v[:, :1], v[:, 1:]], [goal[:1], goal[1:]])
    whole = torch.cat([v.flatten(1), (RIDGE * v.square().sum() / 3).sqrt() * torch.eye(3)], 1).T.double()
    kept = torch.cat([goal.flatten(), whole[-3:, -1].float()]).double()  # the ridge is towards (0, 0, 1)
    by_hand = np.linalg.lstsq(whole.numpy(), kept.numpy(), rcond=None)[0]
    assert found == pytest.approx(by_hand, abs=2e-5)


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

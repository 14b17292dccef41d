"""scripts/multistep.py: weights of methods/multistep.py fitted to dense runs."""

import numpy as np
import pytest
import torch

from fovea.methods import Baseline, Caching, Multistep
from fovea.methods.caches import Forecast
from scripts.multistep import RIDGE, least_squares, weights
from tests.methods.test_jit import GridFlow
from tests.methods.test_ras import LineFlow

NODES = (0, 1, 4, 8)


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

"""The closed form is what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import adapt


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_closed_form_is_the_count(pipe, flow_of, guided):
    with adapt(pipe) as model:
        flow = flow_of(model, b=2, guided=guided)
        x, kv, sigma = flow.noise(), flow.new_kv(), flow.sigmas()[0]
        for k in (None, 13, 1):
            rows = None if k is None else torch.arange(k).expand(2, -1)
            with FlopCounterMode(display=False) as counter:
                flow.velocity(x, sigma, kv=kv, rows=rows)
            assert counter.get_total_flops() == 2 * flow.flops(k)
        assert flow.flops(54) == flow.flops() > flow.flops(13) > flow.flops(1)


def test_guidance_is_twice_the_work(pipe):
    with adapt(pipe) as model:
        grid = model.grid(96, 96)
        assert model.flops(grid, text=24, guided=True) == 2 * model.flops(grid, text=24, guided=False)

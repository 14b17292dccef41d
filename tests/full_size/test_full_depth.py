"""The public architectures whole, one of each size, at 1024 px: the closed form is what is counted.

Modules of one kind are counted once per shape (models/cost.py, whose tests hold that to every operation)."""

import pytest
import torch

from fovea.methods import RALU, RAS, Baseline
from fovea.models import adapt
from fovea.models.cost import count_costs
from fovea.models.families import SIZES
from fovea.models.pretend import pretend

METHODS = {
    "baseline": Baseline(steps=2),
    "ras": RAS(ratio=0.25, start=1, resets=(), steps=3),
    "ralu": RALU(stages=(1, 1, 1)),
}


@pytest.mark.parametrize("name", {size.millions: name for name, size in SIZES.items()}.values())
def test_flops(name):
    known = {}
    with pretend() as device:
        pipe = device.build(SIZES[name].architecture)
        with adapt(pipe) as model:
            for method in METHODS.values():
                flow = model.flow(["a fox"], generators=[torch.Generator().manual_seed(0)])
                with count_costs(model.transformer, known) as spent:
                    x = method(flow)
                assert x.device.type == "cuda"
                assert sum(op.flops * times for op, times in spent.operations.items()) == flow.flops()

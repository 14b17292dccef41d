"""Costs on a pretended GPU: each operation's by hand, a run's against one that is real."""

from collections import Counter
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from fovea.methods import RALU, RAS, Baseline, Caching
from fovea.methods.caches.taylorseer import TaylorSeer
from fovea.models import adapt
from fovea.models.cost import Costs, FusedAttention, count_costs
from fovea.models.gpu import Gpu, Operation
from fovea.models.pretend import pretend
from tests.pipelines import PIPELINES, saved

RUNS = [
    ("sd35", RAS(ratio=0.5, start=1, resets=(3,), steps=5)),
    ("sd35", Caching(steps=5, cache=TaylorSeer(interval=2))),
    ("sd35", RAS(ratio=0.5, start=1, resets=(3,), steps=5, text="keep")),
    ("lumina", Baseline(steps=2)),
    ("flux", RALU(stages=(1, 1, 1))),
]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Of each family a tiny pipeline here, and the same on a pretended GPU."""
    with ExitStack() as stack:
        device = stack.enter_context(pretend())
        with device.off():
            here = {name: PIPELINES[name]() for name, _ in RUNS}
            there = {name: saved(pipe, tmp_path_factory.mktemp(name)) for name, pipe in here.items()}
        kinds = {name: type(pipe).__name__ for name, pipe in here.items()}
        on_gpu = {name: device.load(folder, kinds[name], torch.float32) for name, folder in there.items()}
        yield here, {name: stack.enter_context(adapt(pipe)) for name, pipe in on_gpu.items()}, device


def flow(model):
    return model.flow(["a fox"], generators=[torch.Generator().manual_seed(0)], height=256, width=256)


@pytest.mark.parametrize(
    ("name", "method"), RUNS, ids=lambda x: x if isinstance(x, str) else type(x).__name__
)
def test_what_is_counted_again_costs_what_it_costs_to_run(pipelines, name, method):
    """Kernel by kernel; FLOPs are those of the closed form."""
    model = pipelines[1][name]
    ready = flow(model)
    with Costs() as one, FusedAttention(one):
        method(ready)
    again = flow(model)
    with count_costs(model.transformer, {}) as two:
        method(again)
    assert two.operations == one.operations
    assert two.peak == pytest.approx(one.peak, rel=0.02)  # views that a module gives are tensors here
    assert sum(op.flops * count for op, count in two.operations.items()) == again.flops() == ready.flops()


@pytest.mark.parametrize(("name", "method"), RUNS[:1] + RUNS[2:4])
def test_memory_of_a_real_run(pipelines, name, method):
    """Beside what torch's profiler finds that the same run allocates on this CPU."""
    here, there, device = pipelines
    ready = flow(there[name])
    with Costs() as costs, FusedAttention(costs):
        method(ready)
    with device.off(), adapt(here[name]) as model:
        ready = flow(model)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            method(ready)
    live, peak = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert costs.peak == pytest.approx(peak, rel=0.1)


def on_gpu(*operations):
    with pretend(), Costs() as costs, FusedAttention(costs):
        x = torch.empty(64, 32, device="cuda")  # 8 KiB
        rows = torch.empty(16, dtype=torch.long, device="cuda")
        before = costs.operations.copy()
        kept = [run(x, rows) for run in operations]
        assert kept
        return costs.operations - before


BY_HAND = {
    "adds": (lambda x, _: x + x, Operation(0, 3 * 8192)),
    "is a view": (lambda x, _: x.T[3:].unsqueeze(0), None),
    "is empty": (lambda x, _: x[:0] @ x.T + 1, None),
    "is not written": (lambda x, _: torch.empty_like(x), None),
    "copies": (lambda x, _: x.copy_(x.new_zeros(()).expand(64, 32)), Operation(0, 4 + 8192)),
    "repeats": (lambda x, _: x[:1].expand(64, 32).clone(), Operation(0, 128 + 8192)),
    "takes rows": (lambda x, rows: x[rows], Operation(0, 128 + 2 * 16 * 128)),
    "writes rows": (lambda x, rows: x.index_copy_(0, rows, x[:16]), Operation(0, 2 * (128 + 16 * 128))),
    "multiplies": (lambda x, _: x @ x.T, Operation(2 * 64 * 32 * 64, 2 * 8192 + 4 * 64 * 64)),
    "attends": (
        lambda x, _: F.scaled_dot_product_attention(*[x.view(1, 2, 32, 32)] * 3),
        Operation(4 * 2 * 32 * 32 * 32, 4 * 8192),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_one_operation(name):
    run, expected = BY_HAND[name]
    found = on_gpu(run)
    if expected is None:
        assert not found
    else:
        assert expected in found


def test_memory_is_free_again():
    with pretend(), Costs() as costs:
        x = torch.empty(1024, device="cuda")
        y = x + 1
        assert (costs.live, costs.peak) == (8192, 8192)
        del y
        z = x.view(2, 512)
        assert (costs.live, costs.peak) == (4096, 8192)
        del x, z
        assert costs.live == 0


def test_a_roofline_by_hand():
    gpu = Gpu("mine", 100, 10, 1, 1000, "made up", compute=0.5, traffic=0.25, launch=2)
    work = Counter({Operation(10**12, 10**6): 2, Operation(0, 10**9): 3})
    # 1 TFLOP at 50 TFLOP/s; 1 GB at 250 GB/s
    assert gpu.seconds(work) == pytest.approx(2 * 0.02 + 3 * 0.004 + 5 * 2e-6)
    assert gpu.roofline(work) == pytest.approx(2 * 0.01 + 3 * 0.001)
    assert gpu.in_float32.seconds({Operation(10**12, 0): 1}) == pytest.approx(0.2 + 2e-6)
    with pytest.raises(ValueError, match="compute"):
        Gpu("mine", 100, 10, 1, 1000, "made up", compute=1.5)

"""The closed form is what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fovea.models import adapt
from fovea.models.block_runs import BlockRun


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_closed_form_is_the_count(pipe, flow_of, guided):
    with adapt(pipe) as model:
        flow = flow_of(model, b=2, guided=guided)
        x, kv, sigma, before = flow.noise(), flow.new_kv(), flow.sigmas()[0], 0
        for k, keep_text in ((None, False), (13, False), (1, False), (13, True), (1, True)):
            given = {"rows": None if k is None else torch.arange(k).expand(2, -1), "keep_text": keep_text}
            found = counted(lambda given=given: flow.velocity(x, sigma, kv=kv, **given))
            assert found == 2 * (flow.flops() - before)
            before = flow.flops()
        assert [w.k for w in flow.block_runs] == [54, 13, 1, 13, 1]
        assert flow.tokens() == 54 + 2 * (13 + 1)


@pytest.mark.parametrize("modules", ["attention", "all"])
def test_what_a_cache_answers_is_not_counted(pipe, flow_of, modules):
    with adapt(pipe) as model:
        flow, kept = flow_of(model, b=2), {}
        x, sigma = flow.noise(), flow.sigmas()[0]
        e = flow.prepare(x, sigma)
        v = e.velocity(e.run(e.hidden, modules=modules, record=kept.__setitem__))
        full = flow.flops()
        e = flow.prepare(x, sigma)
        found = counted(lambda: e.velocity(e.run(e.hidden, modules=modules, recall=kept.__getitem__)))
        again = e.velocity(e.run(e.hidden, modules=modules, recall=kept.__getitem__))
        assert torch.equal(again, v)
        e.run(e.hidden, 1, 2, images=[1])
        assert flow.blocks(1) == flow.blocks(0) + 1
        assert torch.equal(flow.velocity(x, sigma), v)  # nothing stays rerouted
    work = BlockRun(
        54, 54, 0, e.blocks, (0,), cached=("attention",) if modules == "attention" else ("attention", "mlp")
    )
    held = sum(model.transformer.flops(work, text=half.text, guided=half.guided) for half in flow.cond.passes)
    readout = counted(lambda: e.velocity(e.hidden)) // 2
    assert found == 2 * held + 2 * readout
    assert held < full


def test_guidance_is_twice_the_work(pipe):
    with adapt(pipe) as model:
        work = BlockRun(36, 36, 0, 3, (0,), outer=True)
        once, twice = (model.transformer.flops(work, text=24, guided=guided) for guided in (False, True))
        assert twice == 2 * once


def test_decoding_is_counted_without_decoding(pipe, flow_of):
    with adapt(pipe) as model:
        flow = flow_of(model, b=2)
        x = flow.noise()
        assert counted(lambda: flow.decode(x)) == 2 * flow.flops()

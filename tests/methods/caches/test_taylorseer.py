import pytest
import torch
from pydantic import ValidationError

from fovea.methods.caches import FORA, TaylorOutput, TaylorSeer
from tests.methods.caches.brute import forecast_modules
from tests.methods.caches.runs import STEPS, facts, run, stock
from tests.pipelines import PIPELINES


def brute_force(family, order, runs, since=0):
    pipe = PIPELINES[family]()
    forecast_modules(pipe.transformer, "|".join(facts(family).modules[0]), order, runs, since)
    return stock(pipe, family)


@pytest.mark.parametrize("phase", ["paper", "diffusers"])
@pytest.mark.parametrize(("interval", "order", "warmup"), [(4, 2, 3), (5, 1, 3), (3, 3, 1), (3, 3, 4)])
def test_equals_a_series_of_the_whole_history(family, interval, order, warmup, phase):
    """The modules of the stock pipeline, each forecast from all that it ever put out; from the last two steps
    of the warm-up on where it is the authors' code."""
    start = warmup + (interval - 1 if phase == "paper" else 1)
    due = {*range(warmup), *range(start, STEPS, interval)}
    found = run(family, TaylorSeer(interval, order, warmup, phase))
    expected = brute_force(family, order, due.__contains__, since=warmup - 2 if phase == "paper" else 0)
    assert found.skipped() == sorted(set(range(STEPS)) - due)
    torch.testing.assert_close(found.x[0], expected, rtol=0, atol=1e-4 if order > 1 else 2e-5)


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_fora_reuses_what_was_put_out_last(family, interval):
    found = run(family, FORA(interval))
    assert torch.equal(found.x[0], brute_force(family, 0, lambda i: i % interval == 0))
    assert torch.equal(found.x, run(family, TaylorSeer(interval, order=0, warmup=1, phase="paper")).x)
    blocks = len(found.flow.transformer.blocks)
    assert found.blocks[0] == [0 if i % interval else blocks for i in range(STEPS)]


@pytest.mark.parametrize("cache", [TaylorSeer, TaylorOutput])
@pytest.mark.parametrize(
    ("interval", "warmup", "phase", "expected"),
    [
        (5, 3, "diffusers", [0, 1, 2, 4, 9, 14, 19]),
        (5, 3, "paper", [0, 1, 2, 7, 12, 17]),
        (3, 1, "paper", [0, 3, 6, 9, 12, 15, 18]),
        (2, 2, "diffusers", [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]),
        (1, 1, "paper", [*range(20)]),
        (50, 2, "paper", [0, 1]),
    ],
)
def test_steps_that_run(cache, interval, warmup, phase, expected):
    settings = cache(interval=interval, warmup=warmup, phase=phase)
    assert [i for i in range(20) if settings.runs(i)] == expected


def test_held_attentions_save_only_their_share(family):
    """The log tells apart what runs, and so do FLOPs."""
    attentions, all_modules = (run(family, TaylorSeer(modules=m)).flow for m in ("attention", "all"))
    dense = run(family, TaylorSeer(interval=1)).flow
    assert attentions.blocks() == dense.blocks() > all_modules.blocks()
    assert dense.flops() > attentions.flops() > all_modules.flops() > 0


def test_the_output_is_one_series(family):
    """The velocity itself, between the steps that run, by hand."""
    steps = []
    cache = TaylorOutput(interval=4, order=1, warmup=2, phase="paper")
    found = run(family, cache, on_step=lambda **step: steps.append(step))
    v = [step["v"] for step in steps]
    assert found.skipped() == [2, 3, 4, 6, 7, 8, 10, 11]
    for last, before, ahead in ((1, 0, 2), (1, 0, 3), (5, 1, 2), (9, 5, 2)):
        line = v[last] + (v[last] - v[before]) / (last - before) * ahead
        torch.testing.assert_close(v[last + ahead], line, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"interval": 0}, {"order": 4}, {"warmup": 0}, {"phase": "x"}, {"modules": "mlp"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        TaylorSeer(**wrong)

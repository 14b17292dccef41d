"""What every cache keeps to, on every family: off is the baseline, an image does not depend on its batch, and
nothing of a run stays behind, whatever ends it."""

from dataclasses import replace
from functools import cache as once

import pytest
import torch

from fovea.methods import Baseline, Caching, Steps, caches, solvers
from fovea.methods.caches import FORA, DBCache, DeltaDiT, TeaCache
from fovea.models import adapt
from tests.methods.caches.runs import CACHES, PROMPTS, STEPS, cache_of, run
from tests.methods.test_contract import parts, stock
from tests.pipelines import PIPELINES


@pytest.fixture(params=CACHES)
def cache(request, family):
    return cache_of(family, request.param)


@pytest.fixture(scope="module")
def before(pipe):
    """What the pipeline's own call gives before a method ran on it."""
    return stock(pipe)


@pytest.fixture(scope="module")
def made(family, pipe, before):
    """A run of the first prompts by a method, which is there for every test that looks at it."""
    pipes = {torch.float32: pipe, torch.bfloat16: PIPELINES[family](torch.bfloat16)}

    @once
    def made(method, images=1, dtype=torch.float32):
        return run(family, method, PROMPTS[:images], pipe=pipes[dtype])

    return made


def part(block, *names):
    """The module that the families call by one of these names."""
    return next(getattr(block, name) for name in names if hasattr(block, name))


def blocks(pipe):
    with adapt(pipe) as model:
        return model.blocks


def test_every_cache_is_here():
    assert {type(cache).__name__ for cache in CACHES.values()} == set(caches.__all__)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_off_is_the_baseline_bit_for_bit(pipe, made, cache, dtype):
    off = type(cache)(**vars(cache) | cache.off)
    found = made(off, 3, dtype)
    assert torch.equal(found.x, made(Baseline(STEPS), 3, dtype).x)
    assert [found.flow.blocks(i) for i in range(3)] == [STEPS * len(blocks(pipe))] * 3


def test_off_is_heuns_method_bit_for_bit(made, cache):
    """Which evaluates one noise level twice: twice as many evaluations, less one, as steps."""
    off = Caching(type(cache)(**vars(cache) | cache.off), STEPS, solver="heun")
    assert torch.equal(made(off).x, made(Steps(STEPS, solver="heun")).x)


def test_with_heun_what_runs_is_told_by_the_step(family, pipe, made, cache):
    """Both evaluations at a noise level, by caches whose steps are known before: those of Euler's run."""
    told = []

    def listening(flow, on_step=None):
        start = type(cache).start

        def watched(flow, steps):
            velocity = start(cache, flow, steps)

            def listen(step, x, sigma, encodings=None):
                before = flow.blocks()
                v = velocity(step, x, sigma, encodings)
                told.append((step, flow.blocks() - before))
                return v

            return listen

        return solvers.heun(watched(flow, STEPS), flow.noise(), flow.sigmas(STEPS), on_step)

    found = run(family, listening, pipe=pipe)
    assert found.x.isfinite().all()
    assert [step for step, _ in told] == [0, *sorted([*range(1, STEPS)] * 2)]
    if getattr(cache, "modules", "all") == "all":
        assert sum(ran for _, ran in told) < (2 * STEPS - 1) * len(blocks(pipe))
    if hasattr(cache, "runs") or isinstance(cache, FORA | DeltaDiT):  # else each image decides as it goes
        euler = made(cache).blocks[0]
        assert told == [(step, euler[step]) for step, _ in told]
    if isinstance(cache, TeaCache):
        assert {ran for step, ran in told if step in (0, STEPS - 1)} == {len(blocks(pipe))}
    if isinstance(cache, DBCache):
        assert {ran for step, ran in told if step < cache.warmup} == {len(blocks(pipe))}


def test_an_image_does_not_depend_on_its_batch(family, pipe, made, cache):
    batch = made(cache, 3)
    for i, prompt in enumerate(PROMPTS):
        alone = run(family, cache, [prompt], pipe=pipe)
        assert batch.blocks[i] == alone.blocks[0]
        torch.testing.assert_close(batch.x[i], alone.x[0], rtol=1e-5, atol=2e-5)
        logs = [[w._replace(images=()) for w in r.flow.block_runs_of(j)] for r, j in ((batch, i), (alone, 0))]
        assert logs[0] == logs[1]


@pytest.mark.parametrize("name", ["teacache", "fbcache", "dbcache", "dicache"])
def test_each_image_of_a_batch_decides_for_itself(made, name):
    """At a threshold between what the images have when they first decide."""
    first = torch.as_tensor(made(replace(CACHES[name], threshold=1e-9), 3).flow.compared[0])
    between = (first.min() + first.max()).item() / 2
    found = made(replace(CACHES[name], threshold=between), 3)
    assert len({tuple(found.skipped(i)) for i in range(3)}) > 1


def test_it_takes_fewer_flops_than_the_baseline(made, cache):
    assert 0 < made(cache).flow.flops() < made(Baseline(STEPS)).flow.flops()


@once
def lumina():
    return PIPELINES["lumina"]()


@once
def dense_flops(steps):
    return run("lumina", Baseline(steps), pipe=lumina()).flow.flops()


@pytest.mark.parametrize("name", CACHES)
def test_whether_it_can_save_anything_is_known_before(name):
    """In few steps, at thresholds that every change is below; and the sparse schedule's."""
    easy = {"threshold": 1e9, "retention": 0.1} if hasattr(CACHES[name], "retention") else {"threshold": 1e9}
    cache = replace(CACHES[name], **{key: v for key, v in easy.items() if hasattr(CACHES[name], key)})
    for steps in (1, 2, 3, 4, 5):
        method = Caching(cache, steps)
        flops = run("lumina", method, pipe=lumina()).flow.flops()
        assert method.saves(99) == (flops < dense_flops(steps)), steps


def test_the_log_says_what_ran(family, pipe, cache):
    """Rows of the batch that pass the blocks' attentions, halves of guidance and all."""
    seen = []
    attentions = [part(block, "attn", "attn1", "attention") for block in blocks(pipe)]
    projections = [part(attention, "to_q", "to_qkv_mlp_proj") for attention in attentions]
    hooks = [p.register_forward_pre_hook(lambda _, args: seen.append(len(args[0]))) for p in projections]
    flow = run(family, cache, PROMPTS, pipe=pipe).flow
    for hook in hooks:
        hook.remove()
    executed = sum(w.blocks * len(w.images) for w in flow.block_runs if "attention" not in w.cached)
    assert sum(seen) == executed * (2 if flow.cond.guided else 1)
    if getattr(cache, "modules", "all") == "all":
        assert executed == sum(flow.blocks(i) for i in range(3))


def test_a_run_after_a_crash_within_a_block_is_as_the_first(family, pipe, before, made, cache):
    """Half way, and at the end."""
    norm = part(blocks(pipe)[-1], "norm", "norm1", "img_norm1", "attention_norm1")
    calls, fatal = [0], [0]

    def count(*_):
        calls[0] += 1
        if calls[0] == fatal[0]:
            raise ArithmeticError("in a block")

    hook = norm.register_forward_pre_hook(count)
    own, first = parts(pipe), made(cache, 3).x
    for late in (False, True):
        calls[0] = fatal[0] = 0
        assert torch.equal(run(family, cache, PROMPTS, pipe=pipe).x, first)
        fatal[0] = calls[0] if late else 1 + calls[0] // 2
        calls[0] = 0
        with pytest.raises(ArithmeticError, match="in a block"):
            run(family, cache, PROMPTS, pipe=pipe)
        assert parts(pipe) == own
    hook.remove()
    assert torch.equal(run(family, cache, PROMPTS, pipe=pipe).x, first)
    assert torch.equal(stock(pipe), before)


def test_a_forward_that_a_module_had_before_stays(family, pipe, made, cache):
    """A hook of the user's: accelerate's, diffusers', LoRA's."""
    modules = [
        m for m in pipe.transformer.modules() if type(m).__name__ in ("FeedForward", "LuminaFeedForward")
    ]
    own = [m.forward for m in modules]
    for module, forward in zip(modules, own, strict=True):
        module.forward = forward
    found = run(family, cache, pipe=pipe).x
    left = [vars(module).pop("forward", None) for module in modules]
    assert torch.equal(found, made(cache).x)
    assert all(after is forward for after, forward in zip(left, own, strict=True))


@pytest.mark.parametrize("name", ["teacache", "seacache", "easycache", "fbcache", "dbcache", "dicache"])
def test_the_smallest_threshold_that_skips_anything_is_known_from_a_run_that_skips_nothing(name):
    cache = CACHES[name]

    def flow(threshold):
        return run("lumina", type(cache)(**vars(cache) | {"threshold": threshold}), pipe=lumina()).flow

    all_ran = flow(1e-9)
    least = all_ran.min_compared()
    assert least > 1e-9
    assert flow(least * 0.999).flops() == all_ran.flops()
    assert flow(least * 1.001).flops() < all_ran.flops()

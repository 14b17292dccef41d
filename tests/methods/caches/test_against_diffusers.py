"""Caches that diffusers has too, against its hooks on the stock pipeline's own call: bit for bit."""

import inspect
from functools import cache

import pytest
import torch
from diffusers.hooks import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    TaylorSeerCacheConfig,
    apply_first_block_cache,
    apply_mag_cache,
    apply_taylorseer_cache,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, HookRegistry, _set_cache_context

from fovea.methods.caches import FBCache, MagCache, TaylorOutput, TaylorSeer
from fovea.models import adapt
from tests.methods.caches.runs import PROMPTS, RATIOS, STEPS, facts, run, stock
from tests.pipelines import PIPELINES

SERIES = [(5, 1, 3), (4, 2, 3), (3, 2, 2), (2, 0, 1), (3, 1, 1)]  # interval, order, warm-up


@pytest.fixture(autouse=True)
def blocks_are_known(monkeypatch):
    """To diffusers' hooks, which lack Lumina's, and look in Z-Image's for an input of another name."""
    TransformerBlockRegistry._register()
    registry = TransformerBlockRegistry._registry
    for kind in {type(block) for family in PIPELINES for block in blocks_of(family)}:
        inputs = [*inspect.signature(kind.forward).parameters]
        if kind not in registry or registry[kind].hidden_states_argument_name not in inputs:
            metadata = TransformerBlockMetadata(0, None, hidden_states_argument_name=inputs[1])
            metadata._cls = kind
            monkeypatch.setitem(registry, kind, metadata)


@cache
def blocks_of(family):
    with adapt(PIPELINES[family]()) as model:
        return model.blocks


def hooked(family, apply, config, prompt=PROMPTS[0], guidance=None):
    """Tokens of the stock pipeline under a hook; SD3's and Lumina's set no context of their own."""
    pipe = PIPELINES[family]()
    apply(pipe.transformer, config)
    HookRegistry.check_if_exists_or_initialize(pipe.transformer).invalidate_child_registries_cache()
    _set_cache_context(pipe.transformer, CacheContext("all"))
    return stock(pipe, family, prompt, guidance)


def taylor(interval, order, warmup, cached, skipped=None):
    return TaylorSeerCacheConfig(
        cache_interval=interval,
        max_order=order,
        disable_cache_before_step=warmup,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=cached,
        skip_predict_identifiers=skipped,
    )


@pytest.mark.parametrize(("interval", "order", "warmup"), SERIES)
def test_taylorseer_of_the_attentions(family, interval, order, warmup):
    config = taylor(interval, order, warmup, facts(family).attentions)
    found = run(family, TaylorSeer(interval, order, warmup, modules="attention"))
    assert torch.equal(found.x[0], hooked(family, apply_taylorseer_cache, config))
    assert any(run.cached == ("attention",) for run in found.flow.block_runs)


@pytest.mark.parametrize(("interval", "order", "warmup"), SERIES)
def test_taylorseer_of_all_modules(family, interval, order, warmup):
    config = taylor(interval, order, warmup, *facts(family).modules)
    found = run(family, TaylorSeer(interval, order, warmup))
    assert torch.equal(found.x[0], hooked(family, apply_taylorseer_cache, config))
    assert found.skipped()


@pytest.mark.parametrize(("interval", "order", "warmup"), SERIES)
def test_taylorseer_of_the_output(family, interval, order, warmup):
    """Without guidance: diffusers forecasts both halves, we what comes of them."""
    config = taylor(interval, order, warmup, *facts(family).output)
    found = run(family, TaylorOutput(interval, order, warmup), guidance=0.0)
    expected = hooked(family, apply_taylorseer_cache, config, guidance=0.0)
    assert torch.equal(found.x[0], expected)
    assert found.skipped()


def test_taylorseer_of_the_output_under_guidance(family):
    config = taylor(3, 1, 2, *facts(family).output)
    expected = hooked(family, apply_taylorseer_cache, config)
    torch.testing.assert_close(run(family, TaylorOutput(3, 1, 2)).x[0], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("modules", ["attention", "all"])
def test_taylorseer_where_the_halves_of_guidance_are_two_passes(modules):
    """Each with a text of its own length: the hook keeps a series for each, and so do we."""
    known = facts("qwen")
    config = taylor(4, 1, 3, *((known.attentions,) if modules == "attention" else known.modules))
    found = run("qwen", TaylorSeer(4, 1, 3, modules=modules), guidance=3.0)
    assert [half.text for half in found.flow.cond.passes] == [10, 5]
    assert torch.equal(found.x[0], through_contexts("qwen", apply_taylorseer_cache, config, 3.0))


def through_contexts(family, apply, config, guidance):
    """Under a hook, in a pipeline that tells it which half of guidance a call is."""
    pipe = PIPELINES[family]()
    apply(pipe.transformer, config)
    return stock(pipe, family, guidance=guidance)


def test_lite_mode_of_flux_is_taylorseer_of_the_output():
    config = TaylorSeerCacheConfig(
        cache_interval=3,
        disable_cache_before_step=2,
        taylor_factors_dtype=torch.float32,
        use_lite_mode=True,
    )
    expected = hooked("flux", apply_taylorseer_cache, config)
    assert torch.equal(run("flux", TaylorOutput(3, 1, 2)).x[0], expected)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("family", "threshold"),
    [("lumina", 0.3), ("lumina", 0.5), ("flux", 0.6), ("flux", 0.8), ("qwen", 0.6), ("krea2", 0.6)],
)
def test_first_block_cache(family, threshold, prompt):
    """Not on SD3: the hook subtracts the text of its last block, which is None. Nor on Z-Image, whose blocks
    call their state by another name than the hook does."""
    config = FirstBlockCacheConfig(threshold=threshold)
    found = run(family, FBCache(threshold), [prompt])
    assert torch.equal(found.x[0], hooked(family, apply_first_block_cache, config, prompt))
    assert 0 < len(found.skipped()) < STEPS - 1


@pytest.mark.parametrize(
    ("threshold", "max_skips", "retention", "ratios"),
    [(0.3, 3, 0.2, RATIOS), (0.06, 3, 0.2, RATIOS), (0.5, 2, 0.0, RATIOS), (0.4, 8, 0.5, RATIOS[::3]),
     (0.2, 3, 0.1, (*RATIOS, *RATIOS))],
)  # fmt: skip
def test_mag_cache(family, threshold, max_skips, retention, ratios):
    """Also with ratios that were measured over another number of steps."""
    config = MagCacheConfig(threshold, max_skips, retention, STEPS, [*ratios])
    found = run(family, MagCache(threshold, max_skips, retention, ratios))
    assert torch.equal(found.x[0], hooked(family, apply_mag_cache, config))
    assert found.skipped()

"""DBCache against cache-dit on the stock pipeline's own call: the same steps skipped, the same bits."""

from dataclasses import replace

import cache_dit
import pytest
import torch
from cache_dit import BlockAdapter, DBCacheConfig, ForwardPattern
from pydantic import ValidationError

from fovea.methods.caches import DBCache, FBCache
from tests.methods.caches.runs import PROMPTS, STEPS, facts, run, stock
from tests.pipelines import PIPELINES

TWO = "flux2_klein"  # cache-dit has two caches on it, one for each kind of blocks: here there is the first
SETTINGS = [
    {"threshold": 0.6, "warmup": 2},
    {"threshold": 0.6, "warmup": 0},
    {"threshold": 0.6, "warmup": 1, "back": 1},
    {"threshold": 0.99, "warmup": 2, "max_in_a_row": 1},
    {"threshold": 0.99, "warmup": 2, "max_skips": 4},
    {"threshold": 0.99, "warmup": 4, "front": 2, "max_in_a_row": 2, "max_skips": 5},
]


def made(family):
    return PIPELINES[family](num_layers=4, num_single_layers=1) if family == TWO else PIPELINES[family]()


def alike(family, cache):
    """What ours is called: the block that cache-dit does not look at always runs, the last of all."""
    return replace(cache, back=cache.back + 1) if family == TWO else cache


def adapter(pipe):
    """What cache-dit is to wrap."""
    if type(pipe).__name__ != "Flux2KleinPipeline":
        return pipe
    dit = pipe.transformer
    return BlockAdapter(pipe, dit, dit.transformer_blocks, forward_pattern=ForwardPattern.Pattern_1)


def theirs(family, cache, prompt, guidance=None):
    """The image and the steps that cache-dit skips, with the prompt where it takes every other call for one
    without, as it does by default even where the pipeline makes none. It wraps the pipeline's class: hence
    disable."""
    pipe = made(family)
    config = DBCacheConfig(
        Fn_compute_blocks=cache.front,
        Bn_compute_blocks=cache.back,
        residual_diff_threshold=cache.threshold,
        max_warmup_steps=cache.warmup,
        max_cached_steps=-1 if cache.max_skips is None else cache.max_skips,
        max_continuous_cached_steps=-1 if cache.max_in_a_row is None else cache.max_in_a_row,
        num_inference_steps=STEPS,
        enable_separate_cfg=guidance is not None if facts(family).passes else None,
    )
    cache_dit.enable_cache(adapter(pipe), cache_config=config)
    try:
        return stock(pipe, family, prompt, guidance), pipe.transformer._cached_steps
    finally:
        cache_dit.disable_cache(pipe)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_cache_dit(family, settings):
    threshold = 0.99 if family == TWO else settings["threshold"]  # its random weights change more
    cache, found = DBCache(**settings | {"threshold": threshold}), []
    for prompt in PROMPTS[:2]:
        ours = run(family, alike(family, cache), [prompt], pipe=made(family))
        x, steps = theirs(family, cache, prompt)
        assert ours.skipped() == steps
        assert torch.equal(ours.x[0], x)
        found.append(steps)
    assert any(found)


def test_equals_cache_dit_where_the_halves_of_guidance_are_two_passes():
    """At fixed steps: cache-dit decides for each half, we for the image."""
    cache = DBCache(threshold=1.0, warmup=2, max_in_a_row=2)
    ours, (x, steps) = run("qwen", cache, guidance=3.0), theirs("qwen", cache, PROMPTS[0], 3.0)
    assert ours.flow.cond.guided
    assert ours.skipped() == steps == [2, 3, 5, 6, 8, 9, 11]
    assert torch.equal(ours.x[0], x)


@pytest.mark.parametrize("family", [family for family in PIPELINES if family != TWO])
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_fbcache_equals_cache_dit_with_one_block_in_front(family, threshold):
    x, steps = theirs(family, DBCache(threshold, front=1, back=0, warmup=0), PROMPTS[0])
    ours = run(family, FBCache(threshold))
    assert ours.skipped() == steps != []
    assert torch.equal(ours.x[0], x)


def test_first_and_last_blocks_always_run(family):
    found = run(family, DBCache(1e9, front=1, back=1, warmup=3))
    blocks = len(found.flow.transformer.blocks)
    assert found.blocks[0] == [blocks] * 3 + [2] * (STEPS - 3)


@pytest.mark.parametrize(
    ("settings", "skipped"),
    [
        ({"warmup": 3}, [3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ({"warmup": 0}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ({"warmup": 2, "max_in_a_row": 2}, [2, 3, 5, 6, 8, 9, 11]),
        ({"warmup": 2, "max_in_a_row": 2, "max_skips": 3}, [2, 3, 5]),
        ({"warmup": 2, "max_skips": 0}, []),
        ({"warmup": 2, "max_in_a_row": 0}, []),
    ],
)
def test_limits_where_every_change_is_small_enough(settings, skipped):
    assert run("lumina", DBCache(1e9, **settings)).skipped() == skipped


def test_no_block_between_is_refused():
    with pytest.raises(ValueError, match=r"front=2, back=1: no block is left in the middle of 3"):
        run("lumina", DBCache(front=2, back=1))


@pytest.mark.parametrize("wrong", [{"front": 0}, {"back": -1}, {"threshold": -0.1}, {"warm_up": 1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        DBCache(**wrong)

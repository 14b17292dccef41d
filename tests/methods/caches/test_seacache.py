"""SeaCache against the published algorithm, over the blocks of the stock pipeline, and diffusers' hook."""

import numpy as np
import pytest
import torch
from diffusers.hooks import SeaCacheConfig, apply_sea_cache
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, HookRegistry, _set_cache_context
from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiTBlock
from pydantic import ValidationError

from fovea.methods import RALU
from fovea.methods.caches import SeaCache
from fovea.methods.caches.seacache import gain, wiener_filter
from fovea.models import adapt
from fovea.models.tokens import unpack
from tests.methods.caches.brute import gate
from tests.methods.caches.runs import PROMPTS, STEPS, options, run, stock
from tests.pipelines import PIPELINES

GRID = (4, 6)  # of 64 x 96 pixels, in tokens


def wiener(picture, sigma, power):
    """numpy, one frequency after the other: (h, w, d)."""
    a, b = 1 - sigma, sigma
    weight = np.ones(picture.shape[:2])
    for axis, size in enumerate(picture.shape[:2]):
        for i, f in enumerate(np.fft.fftfreq(size)):
            s = 1 / (abs(f) ** power + 1e-16)
            weight[(slice(None),) * axis + (i,)] *= a * s / (a * a * s + b * b + 1e-16)
    weight /= weight.mean()
    return np.fft.ifft2(np.fft.fft2(picture, axes=(0, 1)) * weight[..., None], axes=(0, 1)).real


def levels(pipe, family):
    with adapt(pipe) as model:
        return model.sigmas(STEPS, model.grid(64, 96)).tolist()


def algorithm(family, prompt, threshold, power):
    """Tokens and the steps that were skipped."""
    pipe = PIPELINES[family]()
    sigmas = np.clip(levels(pipe, family), 1e-6, 1 - 1e-6)

    def watched(step, block, inputs):
        tokens = block.norm1(inputs["hidden_states"], emb=inputs["temb"])[0].double().numpy()
        return np.stack([wiener(x, sigmas[step], power) for x in tokens.reshape(len(tokens), *GRID, -1)])

    def changed(now, before):
        return np.abs(now - before).mean() / np.abs(before).mean()

    skipped = gate(pipe.transformer, threshold, STEPS, watched, changed)
    return stock(pipe, family, prompt), skipped


@pytest.mark.parametrize("family", ["sd3", "lumina", "flux"])
@pytest.mark.parametrize(("threshold", "power"), [(0.45, 2.0), (0.6, 3.0)])
def test_equals_the_algorithm(family, threshold, power):
    x, skipped = algorithm(family, PROMPTS[0], threshold, power)
    found = run(family, SeaCache(threshold, power))
    assert found.skipped() == skipped
    assert 0 < len(skipped) < STEPS - 2
    assert torch.equal(found.x[0], x)


@pytest.fixture
def lumina_block_is_known(monkeypatch):
    """To diffusers' hooks, which lack it."""
    TransformerBlockRegistry._register()
    metadata = TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    metadata._cls = LuminaNextDiTBlock
    monkeypatch.setitem(TransformerBlockRegistry._registry, LuminaNextDiTBlock, metadata)


def hooked(family, config, monkeypatch):
    """Tokens of the stock pipeline's own call, and the steps whose blocks the hook left out. The pipelines do
    not tell its step and noise level yet, without which it runs in full."""
    pipe = PIPELINES[family]()
    sigmas, dit, step, ran = levels(pipe, family), pipe.transformer, [-1], []
    apply_sea_cache(dit, config)
    HookRegistry.check_if_exists_or_initialize(dit).invalidate_child_registries_cache()
    forward = dit.forward

    def told(*args, **kwargs):
        step[0] += 1
        place = {"step_index": step[0], "num_inference_steps": STEPS, "sigma": sigmas[step[0]]}
        _set_cache_context(dit, CacheContext("cond", **place))
        return forward(*args, **kwargs)

    monkeypatch.setattr(dit, "forward", told)
    last = (getattr(dit, "layers", None) or dit.single_transformer_blocks)[-1]
    norm = getattr(last, "norm", None) or last.norm1
    norm.register_forward_pre_hook(lambda *_: ran.append(step[0]))
    return stock(pipe, family), sorted(set(range(STEPS)) - {*ran})


def latents(family):
    """What the hook is to look at, (channels, 1, height, width) of each image or half of guidance."""
    from fovea.models.tokens import Grid

    def seen(_, args, kwargs):
        given = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return [*(unpack(given, Grid(*GRID), 2) if family == "flux" else given).unsqueeze(2)]

    return seen


@pytest.mark.usefixtures("lumina_block_is_known")
@pytest.mark.parametrize("threshold", [0.3, 0.6])
@pytest.mark.parametrize("family", ["lumina", "flux"])
def test_equals_diffusers_hook(family, threshold, monkeypatch):
    """Where it reuses as the paper does. Not on SD3, whose last block has no text for the hook to keep."""
    config = SeaCacheConfig(
        threshold,
        residual_order=0,
        max_consecutive_cached=0,
        power_exp=2.0,
        raw_vision_callback=latents(family),
    )
    x, skipped = hooked(family, config, monkeypatch)
    found = run(family, SeaCache(threshold, indicator="latent"))
    assert found.skipped() == skipped
    assert 0 < len(skipped) < STEPS - 2
    assert torch.equal(found.x[0], x)


def test_the_filter_keeps_the_mean_and_near_the_image_everything():
    picture = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wiener_filter(picture, torch.tensor(0.0), 2.0), picture, rtol=0, atol=1e-5)
    noisy = wiener_filter(picture, torch.tensor(1.0), 2.0)  # the lowest frequency alone is left
    torch.testing.assert_close(noisy, noisy[..., :1, :1].expand_as(noisy), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9])
def test_the_gain_falls_with_the_frequency(sigma):
    found = gain(16, torch.tensor(sigma), 2.0)[:9]
    assert (found.diff() < 0).all()
    assert found[0].item() == pytest.approx(1 / (1 - sigma), rel=1e-4)


def test_tokens_that_are_no_picture_are_refused():
    with pytest.raises(ValidationError, match="middle stage"):
        RALU(cache=SeaCache())
    RALU(stages=(3, 4), ends=(0.3, 1.0), cache=SeaCache())


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"power": 0}, {"power": "inf"}, {"indicator": "x"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        SeaCache(**wrong)


def test_options_are_of_the_grid_that_the_reference_has():
    assert (options("flux")["height"] // 16, options("flux")["width"] // 16) == GRID

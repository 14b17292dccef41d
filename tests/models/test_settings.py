"""Settings of images: each wrong one is refused before any work, with its value and what is allowed."""

import warnings

import numpy as np
import pytest
import torch

from fovea.methods import RALU, RAS, Baseline, Caching, JiT, Lift
from fovea.methods.caches import DBCache
from fovea.models import adapt, generate, generator
from tests.models.conftest import PROMPTS, made
from tests.models.test_sampling import SMALL, euler

WRONG = [
    ({"steps": 0}, "steps=0: must be a whole number of at least 1"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"steps": True}, "steps=True"),
    ({"height": 0}, "height 0 and width 96 must be multiples of 16"),
    ({"width": -96}, "width -96"),
    ({"guidance": -1}, "guidance=-1: must be a number of at least 0"),
    ({"guidance": float("nan")}, "guidance=nan"),
    ({"guidance": "4"}, "guidance='4'"),
    (
        {"max_sequence_length": 0},
        "max_sequence_length=0: must be a whole number of at least 1 and at most 512",
    ),
    ({"seed": None}, "seed=None: must be a whole number; for one seed per prompt pass generators"),
    ({"seed": [0, 1]}, r"seed=\[0, 1\]"),
    ({"seed": 0.5}, "seed=0.5"),
    ({"batch": 0}, "batch=0"),
    ({"output": "pt"}, "output='pt': must be 'pil' or 'latent'"),
    ({"dense": "both"}, "dense='both': must be 'tokens' or 'stock'"),
    ({"negative": ["a"]}, "2 prompts need one negative prompt or 2, not 1"),
    ({"generators": []}, "2 prompts need 2 generators, not 0"),
    ({"guidance_scale": 4.0}, "unknown setting guidance_scale; did you mean guidance"),
    ({"num_images_per_prompt": 2}, "unknown setting num_images_per_prompt; did you mean prompts"),
    ({"heigth": 64}, "unknown setting heigth; did you mean height"),
    ({"negative": [1, 2]}, "negative: must be text, not 1"),
    ({"negative": "\ud800"}, "negative: '.ud800' holds half of a surrogate pair"),
    (
        {"generators": [3, 4]},
        r"generators: must be torch.Generator, not 3; for seeds, generator\(prompt, seed\)",
    ),
    ({"generators": torch.Generator()}, "2 prompts need 2 generators, not 1"),
    ({"generators": 3}, "generators: must be torch.Generator, not 3"),
    ({"height": "64"}, "height '64' and width 96 must be multiples of 16 pixels"),
    ({"method": Baseline}, r"method=Baseline: is a class; give one of its objects, Baseline\(\)"),
    ({"method": None}, "method=None: must be callable"),
    ({"on_step": 3}, "on_step=3: must be callable"),
    ({"method": RAS()}, "start=4: must be less than steps=2"),
    ({"method": Caching(DBCache(front=2, back=1))}, "front=2, back=1: no block is left in the middle of 3"),
    ({"method": JiT(), "steps": None, "height": 16}, "1 x 6 tokens: JiT needs at least 2 rows"),
    ({"method": RALU(), "steps": None, "height": 48}, "3 x 6 tokens cannot be halved"),
    ({"method": RALU(last=RAS(start=6)), "steps": None}, "start=6: must be less than steps=6"),
    ({"method": Lift(low=3)}, "low=3: must be at most steps=2"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_wrong_settings_are_refused(options, message, monkeypatch):
    pipe = made("sd3", torch.float32)
    monkeypatch.setattr(pipe, "encode_prompt", lambda *_, **__: pytest.fail("worked before refusing"))
    with pytest.raises((TypeError, ValueError), match=message):
        generate(pipe, PROMPTS[:2], **{"method": euler} | SMALL | options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("sd3", {"max_sequence_length": 0}, "max_sequence_length=0"),
        ("sd3", {"max_sequence_length": "64"}, "max_sequence_length='64'"),
        ("flux", {"guidance": "4"}, "guidance='4'"),
        ("qwen", {"guidance": "4"}, "guidance='4'"),
    ],
)
def test_wrong_settings_are_refused_before_prompts_are_counted(family, options, message, caplog):
    with pytest.raises(ValueError, match=message):
        generate(made(family, torch.float32), PROMPTS[:2], method=euler, **SMALL | options)
    assert not [record for record in caplog.records if record.name.startswith("fovea")]


def test_what_a_method_gives_has_to_be_tokens():
    pipe = made("sd3", torch.float32)
    for result, message in (
        (lambda flow: None, "the method gave None, not the final tokens"),
        (lambda flow: flow.noise()[:, :3], r"of shape \(1, 3, 64\), not of \(1, 24, 64\)"),
        (lambda flow: flow.noise().repeat(2, 1, 1), r"of shape \(2, 24, 64\), not of \(1, 24, 64\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            generate(pipe, ["a"], method=lambda flow, on_step, result=result: result(flow), **SMALL)


def test_prompts_must_be_text():
    with pytest.raises(TypeError, match="prompts: must be text, not None"):
        generate(made("sd3", torch.float32), ["a", None], method=euler, **SMALL)
    with pytest.raises(TypeError, match="prompts: must be text, not None"):
        generate(made("sd3", torch.float32), None, method=euler, **SMALL)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_a_negative_without_guidance_is_told(name, pipe, guidance):
    """Also by the configs alone, which a plan has before anything is loaded."""
    with adapt(pipe) as model:
        flow = model.flow(["a"], generators=[generator("a", 0)], guidance=guidance, **SMALL)
        configs = pipe.transformer.config, pipe.config
        assert model.pipeline.guides(guidance, *configs) == flow.cond.guided
    for negative, told in (("blurry", not flow.cond.guided), (" ", False)):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            generate(pipe, ["a"], method=euler, guidance=guidance, negative=negative, **SMALL)
        assert any("negative has no effect" in str(one.message) for one in found) == told


def test_whole_numbers_of_numpy_are_whole(pipe):
    size = SMALL | {"height": np.int64(64), "steps": np.int32(2)}
    a = generate(pipe, PROMPTS[:1], method=euler, seed=np.int64(3), output="latent", **size)
    b = generate(pipe, PROMPTS[:1], method=euler, seed=3, output="latent", **SMALL)
    assert torch.equal(*a, *b)


def test_no_prompts_are_no_images(pipe):
    assert generate(pipe, [], method=euler, **SMALL) == []


@pytest.mark.parametrize("method", [RALU(), RAS(steps=5), Baseline(steps=5)])
def test_steps_beside_a_methods_own_are_refused(method):
    own = 15 if isinstance(method, RALU) else 5
    with pytest.raises(ValueError, match=f"steps=3: the method is set to {own} steps"):
        generate(made("sd3", torch.float32), ["a"], method=method, **SMALL | {"steps": 3})


def test_negatives_are_cut_into_batches_as_prompts_are(name, pipe):
    """One each: the images are those of one batch."""
    kw = {"negative": ["x", "a long one", "z"], "guidance": 3.0, "output": "latent"} | SMALL
    if name == "flux":
        kw |= {"true_cfg_scale": 3.0}
    whole = generate(pipe, PROMPTS, method=euler, batch=3, **kw)
    parts = generate(pipe, PROMPTS, method=euler, batch=2, **kw)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)
    same = generate(pipe, PROMPTS, method=euler, batch=3, **kw | {"negative": "x"})
    assert torch.allclose(whole[0], same[0], atol=2e-5)
    assert not torch.allclose(whole[1], same[1], atol=1e-3)


def test_generators_one_each_are_seeds_one_each(pipe):
    generators = [generator(p, seed) for p, seed in zip(PROMPTS, (0, 1, 2), strict=True)]
    found = generate(pipe, PROMPTS, method=euler, batch=2, generators=generators, output="latent", **SMALL)
    alone = generate(pipe, PROMPTS[1:2], method=euler, seed=1, output="latent", **SMALL)
    torch.testing.assert_close(found[1], alone[0], atol=2e-5, rtol=1e-5)

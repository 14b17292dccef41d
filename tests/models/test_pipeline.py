"""A dense run of the adapter is the pipeline's own call, bit for bit."""

import pytest
import torch

from fovea.models import adapt, generator
from tests.models.conftest import PROMPTS, made
from tests.pipelines import PIPELINES, default_dtype, flux2, stock_tokens, text_limit

SIZES = [(64, 96), (160, 64), (96, 96)]
STEPS = 3


def euler(flow):
    x, sigmas = flow.noise(), flow.sigmas()
    for i in range(flow.steps):
        v = flow.velocity(x, sigmas[i])
        x = (x.float() + (sigmas[i + 1] - sigmas[i]) * v).to(v.dtype)
    return x


def ours(pipe, prompts, height, width, dense="tokens", **options):
    generators = [generator(p, 0) for p in prompts]
    with adapt(pipe, dense) as model:
        flow = model.flow(prompts, generators=generators, height=height, width=width, steps=STEPS, **options)
        return euler(flow), flow


def stock(pipe, prompts, height, width, **options):
    generators = [generator(p, 0) for p in prompts]
    size = {"height": height, "width": width, "num_inference_steps": STEPS}
    return stock_tokens(pipe, prompts, generator=generators, **size | options)


def options(name, guided, b):
    """Options of the adapter and of the pipeline that ask for the same."""
    scale = 2.0 if guided else 0.0
    mine, theirs = {"guidance": scale}, {"guidance_scale": scale}
    if name == "flux":
        mine, theirs = ({key: 2.5, "true_cfg_scale": scale} for key in ("guidance", "guidance_scale"))
    if name == "qwen":
        theirs = {"true_cfg_scale": scale}
    limit = text_limit(made(name, torch.float32))
    if name != "flux2_klein":  # its pipeline takes no negative but ""
        mine, theirs = mine | {"negative": "ugly"}, theirs | {"negative_prompt": ["ugly"] * b}
    return mine | limit, theirs | limit


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("b", [1, 3])
def test_equals_the_pipeline(name, dtype, b, guided):
    pipe, prompts = made(name, dtype), PROMPTS[:b]
    mine, theirs = options(name, guided, b)
    for height, width in SIZES:
        expected = stock(pipe, prompts, height, width, **theirs)
        found, flow = ours(pipe, prompts, height, width, **mine)
        assert [w.k for w in flow.block_runs] == [flow.grid.n] * STEPS
        if name == "flux" and guided:  # the halves are one batch here, two calls there
            atol = 5e-6 if dtype == torch.float32 else 2**-4
            torch.testing.assert_close(found, expected, atol=atol, rtol=0)
        else:
            assert torch.equal(found, expected)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_through_the_transformers_own_forward(name, dtype, guided):
    pipe = made(name, dtype)
    mine, _ = options(name, guided, 2)
    tokens, _ = ours(pipe, PROMPTS[:2], 160, 64, **mine)
    calls = []
    hook = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    through, flow = ours(pipe, PROMPTS[:2], 160, 64, dense="stock", **mine)
    hook.remove()
    assert len(calls) == STEPS * len(flow.cond.passes)
    assert torch.equal(through, tokens)


@pytest.mark.parametrize("build", [*PIPELINES.values(), flux2], ids=lambda build: build.__name__)
def test_equals_the_pipeline_whatever_torchs_default_dtype(build):
    """Embedded guidance, too, at a scale that half precision rounds."""
    pipe = build()
    theirs = {"true_cfg_scale" if build.__name__ == "qwen" else "guidance_scale": 0.3}
    with default_dtype(torch.float16):
        found, _ = ours(pipe, PROMPTS[:1], 64, 96, guidance=0.3, **text_limit(pipe))
        assert torch.equal(found, stock(pipe, PROMPTS[:1], 64, 96, **theirs, **text_limit(pipe)))


def test_decodes_as_the_pipeline(name, dtype):
    pipe = made(name, dtype)
    mine, theirs = options(name, False, 1)
    latents, flow = ours(pipe, PROMPTS[:1], 64, 96, **mine)
    arguments = {"height": 64, "width": 96, "num_inference_steps": STEPS, "output_type": "pt"}
    expected = pipe(prompt=PROMPTS[:1], generator=[generator(PROMPTS[0], 0)], **arguments, **theirs).images
    with adapt(pipe) as model:
        image = model.decode(latents, flow.grid)
    assert image.shape == (1, 3, 64, 96)
    assert torch.equal(image, expected.float())
    assert image.std() > 0.01


def test_defaults_are_the_pipelines(name, pipe):
    with adapt(pipe) as model:
        flow = model.flow(PROMPTS[:1], generators=[generator(PROMPTS[0], 0)])
        steps = {"lumina": 30, "lumina2": 30, "qwen": 50, "flux2_klein": 50, "zimage": 50}
        assert flow.steps == steps.get(name, 28)
        assert flow.cond.guided == (name != "flux")
        scales = {"lumina": 4.0, "lumina2": 4.0, "flux": 1.0, "qwen": 4.0, "flux2_klein": 4.0, "zimage": 5.0}
        assert flow.cond.guidance == (scales | {"krea2": 4.5}).get(name, 7.0)


def test_dynamic_shift_of_sd3():
    pipe = made("sd3", torch.float32)
    mine, theirs = options("sd3", False, 1)
    fixed = pipe.scheduler
    pipe.scheduler = type(fixed).from_config(fixed.config, use_dynamic_shifting=True)
    try:
        expected = stock(pipe, PROMPTS[:1], 64, 96, **theirs)
        assert torch.equal(ours(pipe, PROMPTS[:1], 64, 96, **mine)[0], expected)
    finally:
        pipe.scheduler = fixed
    assert not torch.equal(ours(pipe, PROMPTS[:1], 64, 96, **mine)[0], expected)


def test_a_schedule_can_be_held_while_the_steps_fall(name, pipe):
    """Half as many steps are every other level; without, where the family's depends on their number, not."""
    with adapt(pipe) as model:
        grid = model.grid(96, 144)
        own, held, whole = (
            model.sigmas(5, grid),
            model.sigmas(5, grid, schedule_steps=10),
            model.sigmas(10, grid),
        )
        assert torch.equal(model.sigmas(10, grid, schedule_steps=10), whole)
        if name in ("sd3", "sd35", "lumina"):  # spaced to a last level of their own
            assert torch.equal(held, own)
        else:
            torch.testing.assert_close(held, whole[::2], atol=1e-6, rtol=0)
        assert model.pipeline.schedule_depends_on_steps == (not torch.allclose(held, own, atol=1e-4))


def test_a_stretch_to_the_last_level_that_is_no_schedule_is_refused():
    """Of one step it is 0 / 0, in the pipeline's own call NaN; of more steps than its own it falls to 0."""
    pipe = made("qwen", torch.float32)
    with pytest.warns(RuntimeWarning, match="divide"):
        assert stock(pipe, PROMPTS[:1], 64, 96, num_inference_steps=1).isnan().all()
    with adapt(pipe) as model:
        grid = model.grid(96, 144)
        with pytest.raises(ValueError, match=r"steps=1: .* shift_terminal=0\.02, .* at least 2"):
            model.sigmas(1, grid)
        with pytest.raises(ValueError, match=r"steps=9: .* those of 8 steps .* fall to 0 .* at most 8"):
            model.sigmas(9, grid, schedule_steps=8)
        one, hundred = model.sigmas(1, grid, schedule_steps=50), model.sigmas(100, grid, schedule_steps=50)
    assert one.tolist() == [1, 0]
    assert bool((hundred.diff() < 0).all())

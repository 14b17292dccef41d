"""The pipeline is the user's: it comes back as it was, whatever happened."""

import pytest
import torch

from fovea.models import adapt, generator
from fovea.models.kv import Call
from tests.models.conftest import PROMPTS, made
from tests.pipelines import flux


def processors(pipe):
    return [m.processor for m in pipe.transformer.modules() if hasattr(m, "set_processor")]


def draw(pipe):
    limit = {} if "cross_attention_dim" in pipe.transformer.config else {"max_sequence_length": 16}
    size = {"height": 64, "width": 96, "num_inference_steps": 2}
    generators = [generator(p, 0) for p in PROMPTS[:1]]
    return pipe(prompt=PROMPTS[:1], **size, generator=generators, output_type="latent", **limit).images


def test_pipeline_comes_back(pipe, flow_of):
    before, image = processors(pipe), draw(pipe)
    timesteps = pipe.scheduler.timesteps.clone()
    with adapt(pipe) as model:
        ours = processors(pipe)
        assert len({id(p) for p in ours}) == len(ours)  # one each, also where the pipeline shares one
        flow = flow_of(model)
        x, sigmas, kv = flow.noise(), flow.sigmas(), flow.new_kv()
        flow.velocity(x, sigmas[0], kv=kv)
        flow.velocity(x, sigmas[1], kv=kv, rows=torch.arange(5).expand(3, -1))
        assert processors(pipe) == ours
    assert all(a is b for a, b in zip(processors(pipe), before, strict=True))
    assert torch.equal(pipe.scheduler.timesteps, timesteps)
    assert torch.equal(draw(pipe), image)


def interrupt(*_):
    raise KeyboardInterrupt


def test_pipeline_comes_back_after_an_error(pipe, flow_of):
    before, image = processors(pipe), draw(pipe)
    last = [m for m in pipe.transformer.modules() if hasattr(m, "set_processor")][-1]

    def crash():
        with adapt(pipe) as model:
            flow = flow_of(model, b=1)
            x, sigma, kv = flow.noise(), flow.sigmas()[0], flow.new_kv()
            flow.velocity(x, sigma, kv=kv)
            hook = last.register_forward_pre_hook(interrupt)
            try:
                flow.velocity(x, sigma, kv=kv, rows=torch.arange(5)[None])
            finally:
                hook.remove()

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert all(a is b for a, b in zip(processors(pipe), before, strict=True))
    assert torch.equal(draw(pipe), image)


def test_interrupted_call_leaves_nothing_behind(pipe, flow_of):
    """An interrupted sparse call does not touch the next one, dense or sparse, of another trajectory."""
    last = [m for m in pipe.transformer.modules() if hasattr(m, "set_processor")][-1]
    with adapt(pipe) as model:
        flow = flow_of(model, b=1)
        x, sigma, kv = flow.noise(), flow.sigmas()[0], flow.new_kv()
        expected = flow.velocity(x, sigma, kv=kv)
        hook = last.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            flow.velocity(x, sigma, kv=kv, rows=torch.arange(5)[None])
        hook.remove()
        assert vars(model.transformer.call) == vars(Call())
        assert torch.equal(flow.velocity(x, sigma), expected)


def test_conditioning_and_places_are_constant(pipe, flow_of):
    with adapt(pipe) as model:
        flow, again = flow_of(model), flow_of(model)
        x, sigmas, kv = flow.noise(), flow.sigmas(), flow.new_kv()
        flow.velocity(x, sigmas[0], kv=kv)
        flow.velocity(x, sigmas[1], kv=kv, rows=torch.arange(5).expand(3, -1))
        assert flow.encodings() is flow.encodings()
        for a, b in zip(flow.encodings().tables, model.encodings(flow.grid).tables, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(flow.cond.embeds, again.cond.embeds)
        for a, b in zip(flow.cond.constants, again.cond.constants, strict=True):
            assert torch.equal(a, b)
        assert not flow.cond.embeds.requires_grad


def test_image_does_not_depend_on_its_batch(pipe, flow_of):
    with adapt(pipe) as model:
        together = flow_of(model)
        x, sigma = together.noise(), together.sigmas()[0]
        v = together.velocity(x, sigma)
        for i in range(3):
            alone = flow_of(model, b=1, first=i)
            assert torch.equal(alone.noise(), x[i : i + 1])
            found = alone.velocity(x[i : i + 1], sigma)
            torch.testing.assert_close(found, v[i : i + 1], atol=1e-5, rtol=1e-5)


def test_other_pipelines_are_refused():
    refused = pytest.raises(
        TypeError, match="no adapter for object; there is one for StableDiffusion3Pipeline"
    )
    with refused, adapt(object()):
        pass


def test_sizes_are_refused(pipe):
    with adapt(pipe) as model:
        assert model.grid(64, 96) == (4, 6)
        for height, width in ((64, 100), (0, 64), (8, 64)):
            with pytest.raises(
                ValueError, match=f"height {height} and width {width} must be multiples of 16"
            ):
                model.grid(height, width)
        if model.family == "sd3":
            with pytest.raises(ValueError, match="must be at most 384 pixels"):
                model.grid(64, 400)


def test_prompts_and_generators_go_together(pipe):
    with adapt(pipe) as model, pytest.raises(ValueError, match="2 prompts need 2 generators, not 1"):
        model.flow(PROMPTS[:2], generators=[generator("a", 0)])


def test_flux_guidance():
    """With embedded guidance it is an input; without, it is the scale of classifier-free guidance."""
    embedded = made("flux", torch.float32)
    with adapt(embedded) as model:
        assert not model.encode(["a"], guidance=3.5).guided
        assert model.encode(["a"], guidance=3.5, true_cfg_scale=2.0).guidance == 2.0
        low, high = (model.encode(["a"], guidance=g).constants[0] for g in (1.5, 3.5))
        assert not torch.equal(low, high)
    pipe = flux(guidance_embeds=False)
    with adapt(pipe) as model:
        assert not model.encode(["a"]).guided
        guided = model.encode(["a"], guidance=3.0)
        assert guided.guided
        assert guided.guidance == 3.0
        assert len(guided.constants) == 1
        with_empty = model.encode(["a"], negative="", guidance=3.0)
        assert torch.equal(with_empty.embeds, guided.embeds)
        expected = pipe(
            ["a"],
            negative_prompt=[""],
            true_cfg_scale=3.0,
            num_inference_steps=1,
            height=64,
            width=64,
            generator=[generator("a", 0)],
            output_type="latent",
        ).images
        flow = model.flow(["a"], generators=[generator("a", 0)], guidance=3.0, height=64, width=64, steps=1)
        x, sigmas = flow.noise(), flow.sigmas()
        found = x + (sigmas[1] - sigmas[0]) * flow.velocity(x, sigmas[0])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_offloaded_transformer_is_fetched(pipe):
    """Its hook waits for the transformer's own forward, which is not called."""

    class Hook:
        fetched = 0

        def pre_forward(self, module):
            self.fetched += 1

    pipe.transformer._hf_hook = hook = Hook()
    try:
        with adapt(pipe) as model:
            model.encode(["a"])
            assert hook.fetched > 0
            flow = model.flow(["a"], generators=[generator("a", 0)], height=64, width=64)
            before = hook.fetched
            flow.velocity(flow.noise(), flow.sigmas()[0])
            assert hook.fetched > before
    finally:
        del pipe.transformer._hf_hook


def test_a_flow_that_outlives_its_adapt_is_refused(pipe):
    """The pipeline's own processors keep no keys: a sparse call would attend to nothing but itself."""
    with adapt(pipe) as model:
        flow = model.flow(["a fox"], generators=[generator("a fox", 0)], height=64, width=64, steps=2)
        x, sigma, kv = flow.noise(), flow.sigmas()[0], flow.new_kv()
        flow.velocity(x, sigma, kv=kv)
    for late in (
        lambda: flow.velocity(x, sigma),
        lambda: flow.velocity(x, sigma, kv=kv, rows=torch.arange(4)[None]),
        lambda: flow.prepare(x, sigma),
    ):
        with pytest.raises(RuntimeError, match="after its adapt has ended"):
            late()
    with adapt(pipe), pytest.raises(RuntimeError, match="after its adapt has ended"):
        flow.velocity(x, sigma)

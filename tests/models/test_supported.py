"""What a user's pipeline carries is followed as its own call does, or refused by name before any work."""

import threading
import warnings
from collections.abc import Callable
from copy import deepcopy
from itertools import product

import cache_dit
import diffusers
import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderTiny, FirstBlockCacheConfig, FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import JointAttnProcessor2_0
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torch.utils.flop_counter import FlopCounterMode

from fovea.methods import RAS, Baseline, Steps
from fovea.models import adapt, generate, generator
from fovea.models.blockwise import intercept_modules
from fovea.models.forward import mixing_layer
from fovea.models.quantize import quantise
from fovea.models.tokens import unpack
from tests.models.conftest import PROMPTS, made
from tests.pipelines import PIPELINES, flux, sd3, sd35, stock_tokens, text_limit

SMALL = {"height": 64, "width": 96, "steps": 3}


def ours(pipe, dense="tokens", method=None, prompts=PROMPTS[:2], **options):
    method = method or Baseline()
    return torch.stack(
        generate(pipe, prompts, method=method, output="latent", dense=dense, **SMALL | options)
    )


def own(pipe, prompts=PROMPTS[:2], steps=3, **options):
    """The pipeline's own call."""
    generators = [generator(p, 0) for p in prompts]
    size = {"height": 64, "width": 96, "num_inference_steps": steps}
    return stock_tokens(pipe, prompts, generator=generators, **size, **options)


def refused(pipe, *words: str, dense="tokens", method=None):
    before = [m.processor for m in pipe.transformer.modules() if hasattr(m, "set_processor")]
    with pytest.raises((TypeError, ValueError)) as error:
        ours(pipe, dense, method)
    for word in words:
        assert word in str(error.value)
    after = [m.processor for m in pipe.transformer.modules() if hasattr(m, "set_processor")]
    assert all(a is b for a, b in zip(after, before, strict=True))
    assert "_adapted" not in vars(pipe.transformer)


# schedulers

SCHEDULES = [
    {"shift": 2.0},
    {"shift_terminal": 0.1},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear"},
]


@pytest.mark.parametrize("options", SCHEDULES, ids=str)
@pytest.mark.parametrize("build", [sd3, flux])
def test_every_schedule_of_the_euler_scheduler_is_followed(build, options):
    pipe = build()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, **options)
    assert torch.equal(ours(pipe, guidance=1.0), own(pipe, guidance_scale=1.0))


def test_a_scheduler_that_has_been_used_or_shifted_is_followed():
    pipe = sd3()
    pipe.scheduler.set_timesteps(7)
    pipe.scheduler.set_shift(5.0)
    with adapt(pipe) as model:
        flow = model.flow(["a"], generators=[generator("a", 0)], height=64, width=96)
        assert flow.shift == 5.0
    assert len(pipe.scheduler.timesteps) == 7
    assert torch.equal(ours(pipe), own(pipe))


OTHERS = {
    "FlowMatchHeunDiscreteScheduler": {},
    "FlowMatchLCMScheduler": {},
    "UniPCMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    "DPMSolverMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    "EulerDiscreteScheduler": {},
    "DDIMScheduler": {},
}


@pytest.mark.parametrize(("name", "options"), OTHERS.items())
def test_other_schedulers_are_refused(name, options):
    pipe = sd3()
    pipe.scheduler = getattr(diffusers, name)(**options)
    refused(pipe, f"its scheduler is {name}", "Steps(solver='heun')")


@pytest.mark.parametrize(
    "option", [{"stochastic_sampling": True}, {"invert_sigmas": True}, {"num_train_timesteps": 500}]
)
def test_schedules_that_are_no_ode_in_sigma_are_refused(option):
    pipe = sd3()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, **option)
    refused(pipe, "=".join(map(str, *option.items())))


def test_a_scheduler_with_a_step_of_its_own_is_refused():
    class Damped(FlowMatchEulerDiscreteScheduler):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    pipe = sd3()
    pipe.scheduler = Damped.from_config(pipe.scheduler.config)
    refused(pipe, "its scheduler is Damped")


# attention


class Mine(JointAttnProcessor2_0):
    def __call__(self, *args, **kwargs):
        image, text = super().__call__(*args, **kwargs)
        return 2 * image, text


def test_attention_processors_of_ones_own_are_refused():
    pipe = sd3()
    pipe.transformer.transformer_blocks[1].attn.set_processor(Mine())
    refused(pipe, "transformer_blocks.1.attn", "Mine", "JointAttnProcessor2_0")


@pytest.mark.parametrize("build", [sd3, flux])
def test_fused_projections_are_refused_until_they_are_undone(build):
    pipe = build()
    before = ours(pipe)
    pipe.transformer.fuse_qkv_projections()
    refused(pipe, "fused projections", "unfuse_qkv_projections")
    pipe.transformer.unfuse_qkv_projections()
    assert torch.equal(ours(pipe), before)


@pytest.mark.parametrize("name", ["math", "flash"])
def test_torchs_kernels_of_attention_are_followed(name):
    """Those that a CPU has, chosen as diffusers chooses them."""
    pipe = flux()
    plain = ours(pipe)
    for module in pipe.transformer.modules():
        if hasattr(module, "set_processor"):
            module.processor._attention_backend = AttentionBackendName(f"_native_{name}")
    assert torch.equal(ours(pipe), own(pipe))
    assert torch.equal(ours(pipe), plain) == (name == "flash")  # that is what torch picks


def test_other_attention_backends_are_refused():
    pipe = flux()
    for module in pipe.transformer.modules():
        if hasattr(module, "set_processor"):
            module.processor._attention_backend = "sage"
    refused(pipe, "its attention backend is sage", "_native_flash", "reset_attention_backend")


# caches


@pytest.fixture
def first_block():
    pipe = flux()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.9))
    return pipe


@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "guided"])
def test_a_cache_of_diffusers_is_followed_through_the_forward(first_block, guided):
    """Whatever ran before; with guidance, its halves are cached apart."""
    mine, theirs = {}, {}
    if guided:
        mine, theirs = {"negative": "ugly"}, {"negative_prompt": ["ugly"] * 2}
        mine["true_cfg_scale"] = theirs["true_cfg_scale"] = 2.0
    first = ours(first_block, "stock", steps=6, **mine)
    assert torch.equal(own(first_block, steps=6, **theirs), first)
    assert torch.equal(ours(first_block, "stock", steps=6, **mine), first)
    assert not torch.equal(first, ours(flux(), "stock", steps=6, **mine))


def test_a_cache_of_diffusers_is_refused_elsewhere(first_block):
    refused(first_block, "FirstBlockCacheConfig", "disable_cache()", "dense='stock'")
    refused(
        first_block,
        "FirstBlockCacheConfig",
        "keep no kv",
        dense="stock",
        method=RAS(ratio=0.5, start=1, resets=()),
    )


@pytest.fixture
def cached_by_cache_dit():
    pipe = flux()
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1, Bn_compute_blocks=0, residual_diff_threshold=0.9, max_warmup_steps=2
    )
    cache_dit.enable_cache(pipe, cache_config=config)
    try:
        yield pipe
    finally:
        cache_dit.disable_cache(pipe)


def test_cache_dit_is_followed_through_the_forward(cached_by_cache_dit):
    pipe = cached_by_cache_dit
    first = ours(pipe, "stock", steps=6)
    assert torch.equal(own(pipe, steps=6), first)
    assert torch.equal(ours(pipe, "stock", steps=6), first)
    assert not torch.equal(first, ours(flux(), steps=6))
    refused(pipe, "cache-dit", "cache_dit.disable_cache(pipe)")


# the transformer


@pytest.mark.parametrize("family", ["sd3", "lumina", "flux"])
def test_lora_is_followed_and_counted(family):
    pipe = PIPELINES[family]()
    plain = ours(pipe)
    targets = ["to_q", "to_out.0", "proj_out", "linear_1", "linear_2"]
    config = LoraConfig(r=2, init_lora_weights=False, target_modules=targets)
    inject_adapter_in_model(config, pipe.transformer)  # what load_lora_weights does with a file's
    found = ours(pipe, guidance=1.0)
    assert torch.equal(found, own(pipe, guidance_scale=1.0))
    with adapt(pipe) as model:
        flow = model.flow(["a"], generators=[generator("a", 0)], height=64, width=96, guidance=1.0)
        x, sigmas, kv = flow.noise(), flow.sigmas(), flow.new_kv()
        with FlopCounterMode(display=False) as counter:
            flow.velocity(x, sigmas[0], kv=kv)
            flow.velocity(x, sigmas[1], kv=kv, rows=torch.arange(5)[None])
        assert counter.get_total_flops() == flow.flops()
        for module in pipe.transformer.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(False)
        before = flow.flops()
        with FlopCounterMode(display=False) as counter:
            flow.velocity(x, sigmas[0])
        assert counter.get_total_flops() == flow.flops() - before
    assert torch.equal(ours(pipe), plain)


def test_layerwise_casting_is_followed():
    pipe = sd3(torch.bfloat16)
    pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    found = ours(pipe)
    assert torch.equal(found, own(pipe))
    assert not torch.equal(found, ours(made("sd3", torch.bfloat16)))


def test_training_mode_and_checkpointing_change_nothing():
    pipe = flux()
    before = ours(pipe)
    pipe.transformer.train()
    pipe.transformer.enable_gradient_checkpointing()
    assert torch.equal(ours(pipe), before)
    assert pipe.transformer.training


@pytest.mark.parametrize("how", ["in place", "wrapped"])
def test_a_compiled_transformer_runs_whole_or_is_refused(how):
    pipe = sd3()
    before = ours(pipe)
    if how == "in place":
        pipe.transformer.compile(backend="eager")
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    refused(pipe, "compiled as a whole", "compile_repeated_blocks")
    torch.testing.assert_close(ours(pipe, "stock"), before, atol=1e-5, rtol=0)


def test_compiled_blocks_are_followed():
    pipe = flux()
    before = ours(pipe)
    pipe.transformer.compile_repeated_blocks(backend="eager")
    torch.testing.assert_close(ours(pipe), before, atol=1e-5, rtol=0)


def test_compiled_blocks_run_uncompiled_for_a_cache_within_them_and_for_no_other_pipeline():
    """As in two threads: one pipeline is compiled while a cache acts within the blocks of the other."""
    pipes, ran = {"cached": flux(), "other": flux()}, []

    def backend_of(name):
        def backend(graph, _):
            def run(*given):
                ran.append(name)
                return graph.forward(*given)

            return run

        return backend

    for name, pipe in pipes.items():
        pipe.transformer.compile_repeated_blocks(backend=backend_of(name))
    with adapt(pipes["cached"]) as cached, adapt(pipes["other"]) as other:
        sites = intercept_modules(cached.transformer, "all", lambda *_: None, None, 0)
        flows = [m.flow(["a fox"], generators=[generator("a fox", 0)], **SMALL) for m in (cached, other)]
        given = [(flow.noise(), flow.sigmas()[0]) for flow in flows]
        with sites:
            for flow, (x, sigma) in zip(flows, given, strict=True):
                flow.velocity(x, sigma)
            assert {*ran} == {"other"}
        for flow, (x, sigma) in zip(flows, given, strict=True):
            flow.velocity(x, sigma)
        assert {*ran} == {"cached", "other"}


def test_a_hook_around_the_forward_runs_or_is_refused():
    pipe, calls = sd3(), []
    hook = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    refused(pipe, "forward hooks")
    ours(pipe, "stock")
    assert len(calls) == 3
    hook.remove()


def test_a_replaced_forward_is_refused(monkeypatch):
    pipe = flux()
    plain: Callable = type(pipe.transformer).forward
    monkeypatch.setattr(
        type(pipe.transformer), "forward", lambda self, *args, **kwargs: plain(self, *args, **kwargs)
    )
    refused(pipe, "forward has been replaced")
    assert torch.isfinite(ours(pipe, "stock")).all()


def test_a_transformer_that_takes_an_image_is_refused():
    refused(flux(in_channels=128, out_channels=64), "takes 32 channels", "gives 16")


# the pipeline


def test_subclasses_with_a_call_of_their_own_are_refused():
    class Quiet(diffusers.StableDiffusion3Pipeline):
        pass

    class Loud(diffusers.StableDiffusion3Pipeline):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    assert torch.equal(ours(Quiet(**sd3().components)), ours(made("sd3", torch.float32)))
    refused(Loud(**sd3().components), "Loud has a __call__ of its own")


def test_other_tasks_pipelines_are_refused():
    pipe = diffusers.StableDiffusion3Img2ImgPipeline(**sd3().components)
    refused(pipe, "no adapter for StableDiffusion3Img2ImgPipeline")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_missing_components_are_named(part):
    pipe = flux()
    pipe.register_modules(**{part: None})
    with pytest.raises(TypeError, match=f"it has no {part}"):
        ours(pipe)


def test_sd3_without_its_third_text_encoder_is_followed():
    pipe = sd3(joint_attention_dim=64)
    pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
    assert torch.equal(ours(pipe), own(pipe))


def test_components_in_other_formats_are_followed():
    """Text encoders in float16, as newer libraries load what was stored so; the stock call fails on them."""
    for name, part in (("sd3", "text_encoder_3"), ("lumina", "text_encoder"), ("flux", "text_encoder_2")):
        pipe = PIPELINES[name]()
        before = ours(pipe)
        getattr(pipe, part).to(torch.float16)
        torch.testing.assert_close(ours(pipe), before, atol=0.05, rtol=0)


def sequential(pipe):
    """What `enable_sequential_cpu_offload` does, which would give the CPU a number, with which it cannot be
    run."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


@pytest.mark.parametrize("family", ["sd3", "lumina", "flux"])
@pytest.mark.parametrize("how", ["by model", "by layer", "the whole pipeline by layer"])
def test_offloading_is_followed(family, how):
    """To the CPU's own memory: the hooks, and the weights on "meta", are those of a GPU's run."""
    pipe = PIPELINES[family]()
    before, method = ours(pipe), RAS(ratio=0.5, steps=3, start=1, resets=())
    sparse = ours(pipe, method=method)
    if how == "by model":
        pipe.enable_model_cpu_offload(device="cpu")
    elif how == "the whole pipeline by layer":
        sequential(pipe)
        assert all(
            next(part.parameters()).is_meta for part in (pipe.transformer, pipe.vae, pipe.text_encoder)
        )
    else:
        cpu_offload(pipe.transformer, torch.device("cpu"))
        assert next(pipe.transformer.parameters()).is_meta
    for dense in ("tokens", "stock"):
        assert torch.equal(ours(pipe, dense), before)
    assert torch.equal(ours(pipe, method=method), sparse)
    assert torch.equal(own(pipe), before)
    images = generate(pipe, PROMPTS[:1], method=Steps(), **SMALL)
    assert images[0].size == (96, 64)


def rounded(module):
    """Its linear layers in 8 bits, weights and what they are given, by torch's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to move to torchao
        return quantize_dynamic(module, {nn.Linear})


def test_layers_that_round_a_token_by_the_others_are_followed_by_the_transformers_own_forward_alone():
    """torch rounds what a layer is given by the largest of it, so that fewer tokens are rounded otherwise."""
    pipe = sd3()
    pipe.transformer = rounded(pipe.transformer)
    refused(pipe, "is quantised", "(torch's Linear) round a token depending on the others", "dense='stock'")
    assert torch.equal(ours(pipe, "stock"), own(pipe))


@pytest.mark.parametrize(
    ("family", "how"),
    [*product(["flux"], ["int8", "int8_dynamic", "fp8"]), *product(["sd3", "lumina", "flux"], ["nf4"])],
)
def test_weights_in_fewer_bits_are_followed(family, how):
    """Sparse steps too: an image is the same alone and beside another, and at ratio 1 the dense one."""
    pipe, unguided = PIPELINES[family](), {"guidance": 1.0}
    before = ours(pipe, **unguided)
    quantise(pipe.transformer, how)
    dense = ours(pipe, **unguided)
    assert torch.equal(dense, own(pipe, guidance_scale=1.0))
    assert 0 < (dense - before).norm() / before.norm() < 0.5
    every, sparse = (RAS(ratio=ratio, steps=3, start=1, resets=()) for ratio in (1.0, 0.5))
    torch.testing.assert_close(ours(pipe, method=every, **unguided), dense, atol=1e-4, rtol=0)
    both = ours(pipe, method=sparse, **unguided)
    alone = ours(pipe, method=sparse, prompts=PROMPTS[1:2], **unguided)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", ["int8", "int8_dynamic", "fp8", "nf4"])
def test_a_text_is_kept_where_the_layers_can_be_given_none(how):
    pipe, method = PIPELINES["flux"](), RAS(ratio=0.5, steps=3, start=1, resets=(), text="keep")
    quantise(pipe.transformer, how)
    if how == "int8_dynamic":
        with pytest.raises(ValueError, match=r"its layers \(torch's Linear\) fail where no text is given"):
            ours(pipe, method=method, guidance=1.0)
    else:
        assert ours(pipe, method=method, guidance=1.0).isfinite().all()


def test_an_adapter_on_quantised_weights_is_followed():
    pipe = flux()
    quantise(pipe.transformer, "int8")
    plain = ours(pipe)
    with pytest.warns(UserWarning, match="Forward and training will work"):
        pipe.transformer.add_adapter(LoraConfig(r=4, target_modules=["to_q"], init_lora_weights=False))
    assert torch.equal(ours(pipe), own(pipe))
    assert not torch.equal(ours(pipe), plain)


def test_layers_that_take_no_tokens_as_they_are_stored_are_not_followed():
    pipe = sd3()
    assert mixing_layer(pipe.transformer) is None
    layer = pipe.transformer.proj_out
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    assert mixing_layer(pipe.transformer) == "torch's Linear"


def test_quantised_text_encoders_are_followed():
    pipe = sd3()
    before = own(pipe)
    pipe.text_encoder_3 = rounded(pipe.text_encoder_3)
    assert torch.equal(ours(pipe), own(pipe))
    assert not torch.equal(own(pipe), before)


def test_group_offloading_is_refused():
    pipe = sd35()
    pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    refused(pipe, "offloaded by groups", "enable_model_cpu_offload")


def test_autocast_is_refused():
    """Parts that run one by one are rounded otherwise than in the transformer's forward."""
    pipe = sd3()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refused(pipe, "torch.autocast is on", "load the pipeline with the dtype")
    assert torch.equal(ours(pipe), own(pipe))


def test_one_transformer_serves_one_at_a_time():
    """In this thread and in another: the second is refused, the first goes on undisturbed."""
    pipe = sd3()
    expected, refusals, inside, done = ours(pipe), [], threading.Event(), threading.Event()

    def second():
        inside.wait(60)
        try:
            ours(pipe)
        except RuntimeError as error:
            refusals.append(str(error))
        done.set()

    def wait(**_):
        inside.set()
        assert done.wait(60)

    other = threading.Thread(target=second)
    other.start()
    assert torch.equal(ours(pipe, on_step=wait), expected)
    other.join()
    assert "in use by another adapt" in refusals[0]
    with adapt(pipe), pytest.raises(RuntimeError, match="in use"), adapt(pipe):
        pass
    assert torch.equal(ours(pipe), expected)
    assert torch.equal(own(pipe), expected)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_copy_made_while_it_is_adapted_is_a_stock_pipeline(family):
    """In a callback and in the block: it has diffusers' processors, is free, and gives the same."""
    pipe, copies = PIPELINES[family](), []
    method = RAS(ratio=0.5, steps=3, start=1, resets=())
    expected, stock = ours(pipe, method=method, **text_limit(pipe)), own(pipe, **text_limit(pipe))
    ours(pipe, method=method, on_step=lambda i, **_: i or copies.append(deepcopy(pipe)), **text_limit(pipe))
    with adapt(pipe):
        copies.append(deepcopy(pipe))
        assert torch.equal(ours(copies[0], method=method, **text_limit(pipe)), expected)
        with pytest.raises(RuntimeError, match="in use"), adapt(pipe):
            pass
    for copied in copies:
        assert torch.equal(own(copied, **text_limit(pipe)), stock)
        assert torch.equal(ours(copied, method=method, **text_limit(pipe)), expected)
        with adapt(copied), pytest.raises(RuntimeError, match="in use"), adapt(copied):
            pass
    assert torch.equal(ours(pipe, method=method, **text_limit(pipe)), expected)


def test_a_tiny_autoencoder_is_followed():
    """TAESD has no posterior and other names; images go both ways through it."""
    pipe, sides = sd3(), (8, 8, 8, 8)
    encoder = {"encoder_block_out_channels": sides, "num_encoder_blocks": (1, 1, 1, 1)}
    decoder = {"decoder_block_out_channels": sides, "num_decoder_blocks": (1, 1, 1, 1)}
    pipe.vae = AutoencoderTiny(latent_channels=16, **encoder, **decoder).eval()
    assert torch.equal(ours(pipe), own(pipe))
    with adapt(pipe) as model:
        flow = model.flow(["a fox"], generators=[generator("a fox", 0)], **SMALL)
        image = flow.decode(flow.noise())
        latents = pipe.vae.encode(2 * image - 1).latents
        expected = model.pipeline.normalise(latents)
        assert torch.equal(unpack(flow.encode(image), flow.grid, 2), expected)

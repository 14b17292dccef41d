"""Krea 2's own: guidance from 0 on, the distilled schedule, padding within the text, norms in float32."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fovea.methods import Steps
from fovea.models import Checkpoint, Grid, adapt, generate, generator
from fovea.models.families import SIZES
from fovea.models.pretend import pretend
from tests.models.conftest import PROMPTS, made
from tests.models.test_sparse import rows_of
from tests.pipelines import krea2, saved, stock_tokens

SIZE = {"height": 64, "width": 96, "max_sequence_length": 16}


def drawn(pipe, **options):
    found = generate(pipe, PROMPTS, method=Steps(steps=2), output="latent", **SIZE, **options)
    return torch.stack(found)


def stock(pipe, **options):
    generators = [generator(prompt, 0) for prompt in PROMPTS]
    return stock_tokens(pipe, PROMPTS, generator=generators, num_inference_steps=2, **SIZE, **options)


def test_any_guidance_above_zero_guides():
    pipe = made("krea2", torch.float32)
    with adapt(pipe) as model:
        assert [model.encode(["a"], guidance=g).guided for g in (0.0, 0.5, 1.0)] == [False, True, True]
    assert torch.equal(drawn(pipe, guidance=0.5), stock(pipe, guidance_scale=0.5))


def test_the_shift_grows_up_to_6400_tokens_and_is_fixed_where_distilled():
    """From 0.5 at 256 tokens to 1.15 at 6400."""
    for distilled, mus in ((False, (0.5, 0.90625, 1.15)), (True, (1.15, 1.15, 1.15))):
        with adapt(krea2(distilled=distilled)) as model:
            shifts = [model.pipeline.shift(8, Grid(side, side)) for side in (16, 64, 80)]
        assert shifts == pytest.approx([math.exp(mu) for mu in mus])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_distilled_model_equals_its_pipeline(dtype):
    pipe = krea2(dtype, distilled=True)
    turbo = drawn(pipe, guidance=0.0)
    assert torch.equal(turbo, stock(pipe, guidance_scale=0.0))
    assert not torch.equal(turbo, drawn(made("krea2", dtype), guidance=0.0))
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_dynamic_shifting=False)
    assert torch.equal(drawn(pipe, guidance=0.0), stock(pipe, guidance_scale=0.0))


def test_the_two_sizes_are_one_architecture():
    base, turbo = (dict(SIZES[name].architecture) for name in ("krea2", "krea2_turbo"))
    assert [size.pop("pipeline")[1]["is_distilled"] for size in (base, turbo)] == [False, True]
    assert base == turbo


def test_the_text_is_fused_once_per_trajectory():
    """For each half of guidance."""
    pipe, ran = krea2(), []
    with adapt(pipe) as model:
        for module in (pipe.transformer.text_fusion, pipe.transformer.txt_in):
            module.register_forward_hook(lambda module, *_: ran.append(type(module).__name__))
        flow = model.flow(PROMPTS, generators=[generator(p, 0) for p in PROMPTS], guidance=2.0, **SIZE)
        Steps(steps=4)(flow)
    assert ran == ["Krea2TextFusion", "Krea2TextProjection"] * 2


def test_padding_is_within_the_template():
    """Between the prompt and the template's end, of five tokens; the part before the prompt is dropped."""
    pipe = made("krea2", torch.float32)
    with adapt(pipe) as model:
        cond = model.encode(PROMPTS, guidance=0.0, max_sequence_length=16)
    lengths = [min(11, len(pipe.tokenizer(prompt)["input_ids"])) for prompt in PROMPTS]
    assert len({*lengths}) == 3
    assert cond.mask is not None
    assert cond.mask.tolist() == [[True] * n + [False] * (11 - n) + [True] * 5 for n in lengths]
    ids = pipe.tokenizer(pipe.prompt_template_encode_prefix)["input_ids"]
    assert len(ids) == pipe.prompt_template_encode_start_idx


@pytest.mark.parametrize("name", ["krea2"])
def test_padding_is_not_seen(name, flow_of):
    """Whatever stands there: by a dense call, by some tokens, and by some tokens with the text kept."""
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model, guided=False)
        padding = ~flow.cond.mask[..., None]
        assert padding.any()
        other = replace(flow, cond=replace(flow.cond, embeds=flow.cond.embeds + 7 * padding))
        x, sigma, rows = flow.noise(), flow.sigmas()[0], rows_of(flow, 13, 0)
        for one, two in zip(calls(flow, x, sigma, rows), calls(other, x, sigma, rows), strict=True):
            assert torch.equal(one, two)


def calls(flow, x, sigma, rows):
    kv = flow.new_kv()
    yield flow.velocity(x, sigma, kv=kv)
    yield flow.velocity(x + 1, sigma, kv=kv, rows=rows)
    yield flow.velocity(x + 1, sigma, kv=kv, rows=rows, keep_text=True)


def test_positions_are_the_pipelines():
    pipe = made("krea2", torch.float32)
    expected = pipe.prepare_position_ids(7, 4, 6, torch.device("cpu"))
    with adapt(pipe) as model:
        assert torch.equal(model.transformer.ids(Grid(4, 6).positions(), text=7), expected)


def test_norms_are_in_float32_as_loaded_and_centred_on_zero(tmp_path):
    """In bfloat16, of random weights as of a checkpoint's."""
    pipe = made("krea2", torch.bfloat16)
    pipe.save_pretrained(tmp_path)
    loaded = checkpoint(tmp_path, dtype="bfloat16").load()
    for own in (pipe.transformer, loaded.transformer):
        weights = dict(own.named_parameters())
        kept = {name for name, p in weights.items() if p.dtype == torch.float32}
        assert kept == {name for name in weights if name.split(".")[-2].startswith("norm")}
    means = torch.stack([weights[name].mean() for name in kept])
    assert means.abs().max() < 0.1 < weights["img_in.weight"].std()
    assert torch.equal(drawn(loaded), drawn(pipe))


def checkpoint(folder: Path, **options) -> Checkpoint:
    return Checkpoint(family="krea2", path=str(folder), height=64, width=96, device="cpu", **options)


def test_a_folder_with_a_list_of_layers_loads_and_draws_the_same(tmp_path):
    pipe = krea2(distilled=True)
    folder = saved(pipe, tmp_path / "folder")
    assert json.loads((folder / "model_index.json").read_text())["text_encoder_select_layers"] == [1, 2]
    found = checkpoint(folder)
    found.check()
    assert (found.grid, found.blocks) == ((4, 6), 3)
    assert torch.equal(drawn(found.load()), drawn(pipe))
    with pretend() as device:
        shapes = device.load(folder, "Krea2Pipeline")
    assert shapes.text_encoder_select_layers == (1, 2)
    assert shapes.config.is_distilled


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_text_encoder_of_another_dtype_is_followed(dtype):
    """As in the other families. The pipeline's own call does not convert what its encoder gives, but takes
    embeddings that are converted."""
    pipe, size = krea2(), {"height": 64, "width": 96}
    pipe.text_encoder.to(dtype)
    given = {}
    for name, prompt in (("prompt", PROMPTS[0]), ("negative_prompt", "")):
        embeds, mask = pipe.encode_prompt([prompt], max_sequence_length=16)
        given |= {f"{name}_embeds": embeds.float(), f"{name}_embeds_mask": mask}
    noise = {"generator": [generator(PROMPTS[0], 0)], "max_sequence_length": 16}
    expected = pipe(**given, **size, **noise, num_inference_steps=3, guidance_scale=2.0, output_type="latent")
    found = generate(
        pipe, PROMPTS[0], method=Steps(steps=3), guidance=2.0, output="latent", max_sequence_length=16, **size
    )
    assert torch.equal(found[0], expected.images[0])

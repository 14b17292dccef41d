"""What FLUX.2 has of its own: dev and klein on one transformer class."""

from typing import Any

import pytest
import torch

from fovea.models import Checkpoint, adapt, generate, generator
from fovea.models.tokens import Grid, unpack
from tests.models.conftest import PROMPTS
from tests.models.test_pipeline import euler
from tests.models.test_sampling import euler as method
from tests.pipelines import flux2, flux2_klein, saved, stock_tokens

SIZE: dict[str, Any] = {"height": 64, "width": 96}
TEXT: dict[str, Any] = {"max_sequence_length": 192}  # dev's system message alone takes 172 of these tokens


def drawn(pipe, b, steps=3, **options):
    """Final tokens by the pipeline's own call and by the adapter, and the flow."""
    prompts, generators = PROMPTS[:b], [[generator(p, 0) for p in PROMPTS[:b]] for _ in range(2)]
    own = {"num_inference_steps": steps, "guidance_scale": options["guidance"]}
    expected = stock_tokens(pipe, prompts, generator=generators[0], **own, **SIZE, **TEXT)
    with adapt(pipe) as model:
        flow = model.flow(prompts, generators=generators[1], steps=steps, **options, **SIZE, **TEXT)
        return expected, euler(flow), flow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "no guidance"])
def test_dev_equals_its_pipeline(dtype, embedded):
    pipe = flux2(dtype, guidance_embeds=embedded)
    found = []
    for guidance in (1.0, 4.0):
        expected, x, flow = drawn(pipe, 2, guidance=guidance)
        assert torch.equal(x, expected)
        assert not flow.cond.guided
        found.append(x)
    assert torch.equal(*found) != embedded


def test_dev_decodes_as_its_pipeline():
    pipe = flux2()
    _, x, flow = drawn(pipe, 1, guidance=4.0)
    own = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "pt"}
    image = pipe(prompt=PROMPTS[:1], generator=[generator(PROMPTS[0], 0)], **own, **SIZE, **TEXT).images
    assert torch.equal(flow.decode(x), image)


def test_sparse_calls_of_dev_are_the_dense_ones():
    with adapt(flux2()) as model:
        generators = [generator(p, 0) for p in PROMPTS[:2]]
        flow = model.flow(PROMPTS[:2], generators=generators, steps=2, guidance=4.0, **SIZE, **TEXT)
        x, kv, sigma = flow.noise(), flow.new_kv(), flow.sigmas()[0]
        dense = flow.velocity(x, sigma, kv=kv)
        every = torch.arange(flow.grid.n).expand(2, -1)
        assert torch.equal(flow.velocity(x, sigma, kv=kv, rows=every), dense)
        rows = torch.stack([torch.arange(5), torch.arange(7, 12)])
        some = flow.velocity(x, sigma, kv=kv, rows=rows)
        torch.testing.assert_close(some, dense[torch.arange(2)[:, None], rows], atol=1e-5, rtol=0)


def test_latents_of_klein_are_those_of_the_autoencoder():
    pipe = flux2_klein()
    _, x, flow = drawn(pipe, 2, guidance=2.0)
    own = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "latent"}
    generators = [generator(p, 0) for p in PROMPTS[:2]]
    latents = pipe(prompt=PROMPTS[:2], generator=generators, **own, **SIZE, **TEXT).images
    assert torch.equal(flow.pipeline.denormalise(unpack(x, flow.grid, 2)), latents)


def test_a_distilled_klein_takes_no_guidance():
    pipe = flux2_klein(distilled=True)
    (expected, x, flow), (_, unguided, _) = (drawn(pipe, 1, guidance=scale) for scale in (4.0, 1.0))
    assert torch.equal(x, expected)
    assert torch.equal(x, unguided)
    assert not flow.cond.guided


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_the_schedule_is_that_of_the_number_of_steps(steps):
    pipe = flux2_klein(num_layers=1, num_single_layers=0)
    _, _, flow = drawn(pipe, 1, steps, guidance=1.0)
    assert torch.equal(flow.sigmas(), pipe.scheduler.sigmas)
    assert flow.shift > flow.pipeline.shift(2 * steps, flow.grid)


def test_rotations_of_image_and_text():
    pipe = flux2_klein()
    with adapt(pipe) as model:
        cond = model.encode(PROMPTS[:1], guidance=1.0, max_sequence_length=16)
        image = model.encodings(Grid(3, 4)).tables
    latent_ids = pipe._prepare_latent_ids(torch.zeros(1, 1, 3, 4))
    for tables, ids in ((image, latent_ids), (cond.tables, pipe._prepare_text_ids(torch.zeros(1, 16, 1)))):
        for table, expected in zip(tables, pipe.transformer.pos_embed(ids[0]), strict=True):
            assert torch.equal(table[0], expected)


def test_fused_projections_are_refused():
    pipe = flux2_klein()
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(TypeError, match="fused projections"), adapt(pipe):
        pass


@pytest.mark.parametrize("make", [flux2, flux2_klein])
def test_a_folder_in_the_public_layout(make, tmp_path):
    """Shards with their index, the tokenizer's or the processor's own files, and another precision beside."""
    pipe = make()
    folder = saved(pipe, tmp_path / "tiny")
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="200KB")
    pipe.transformer.save_pretrained(folder / "transformer", variant="fp16")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert len([*(folder / "transformer").glob("*-of-*.safetensors")]) > 1
    family = {flux2: "flux2", flux2_klein: "flux2_klein"}[make]
    check = Checkpoint(family=family, path=str(folder), device="cpu", **SIZE)
    check.check()
    loaded = check.load()
    loaded.set_progress_bar_config(disable=True)
    images = [generate(p, PROMPTS[:1], method=method, output="latent", steps=2, **SIZE, **TEXT)[0]
              for p in (pipe, loaded)]  # fmt: skip
    assert torch.equal(*images)
    assert check.blocks == 4

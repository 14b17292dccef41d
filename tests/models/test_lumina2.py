"""Lumina-Image 2.0's own: normalised guidance, texts of several lengths, its schedule, a folder in parts."""

import pytest
import torch

from fovea.methods import Steps
from fovea.models import Checkpoint, Grid, adapt, generate, generator
from fovea.models.tokens import gather_tokens, unpack
from tests.models.conftest import PROMPTS, made
from tests.models.test_sparse import rows_of
from tests.pipelines import lumina2, stock_tokens

SIZE = {"height": 64, "width": 96, "max_sequence_length": 64}


def drawn(pipe, **options):
    found = generate(pipe, PROMPTS, method=Steps(steps=2), output="latent", **SIZE, **options)
    return torch.stack(found)


@pytest.mark.parametrize("normalised", [True, False])
def test_guidance_is_the_pipelines(normalised):
    pipe, generators = made("lumina2", torch.float32), [generator(p, 0) for p in PROMPTS]
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "cfg_normalization": normalised}
    expected = stock_tokens(pipe, PROMPTS, generator=generators, **SIZE, **options)
    assert torch.equal(drawn(pipe, guidance=3.0, cfg_normalization=normalised), expected)
    assert torch.equal(drawn(pipe, guidance=3.0), expected) == normalised


def test_guidance_that_ends_on_the_way_is_refused():
    with adapt(made("lumina2", torch.float32)) as model:
        assert [model.encode(["a"], guidance=g, cfg_trunc_ratio=1.0).guided for g in (1.0, 1.5)] == [
            False,
            True,
        ]
        with pytest.raises(ValueError, match=r"cfg_trunc_ratio=0\.25: guidance would end on the way"):
            model.encode(["a"], cfg_trunc_ratio=0.25)


def row_norms(v, grid):
    return unpack(v, grid, 2).norm(dim=-1)


@pytest.mark.parametrize("name", ["lumina2"])
def test_each_row_of_pixels_has_the_norm_of_the_prompted_velocity(name, flow_of):
    """Of all tokens; of those that run, with the others as last seen; and of tokens at given positions."""
    with adapt(made("lumina2", torch.float32)) as model:
        flow, prompted = (flow_of(model, guided=guided) for guided in (True, False))
        x, kv, sigma, grid = flow.noise(), flow.new_kv(), flow.sigmas()[0], flow.grid
        v, expected = flow.velocity(x, sigma, kv=kv), row_norms(prompted.velocity(x, sigma), grid)
        torch.testing.assert_close(row_norms(v, grid), expected)
        rows = rows_of(flow, 13, 0)
        some = flow.velocity(x, sigma, kv=kv, rows=rows)
        torch.testing.assert_close(some, gather_tokens(v, rows), atol=1e-5, rtol=1e-5)
        at = grid.positions().expand(3, -1, -1)
        placed = flow.velocity(x, sigma, encodings=flow.encodings(at))
        torch.testing.assert_close(placed, v, atol=1e-5, rtol=1e-5)


def test_tokens_share_the_row_of_the_cell_they_lie_in():
    with adapt(made("lumina2", torch.float32)) as model:
        half, p = Grid(2, 2), model.transformer.patch
        at = torch.tensor([[[0.0, 0.0], [0.0, 0.5], [0.5, 0.0], [1.0, 1.0]]])
        v_cond, guided = torch.randn(2, 1, 4, 64, generator=torch.Generator().manual_seed(0)).unbind(0)
        ratio = model.transformer.norm_ratio(v_cond, guided, model.encodings(half, at))
        rescaled = (guided * ratio).unflatten(-1, (-1, p, p))
        for cells in ([0, 1, 2], [3]):
            found, expected = (
                t[:, cells].square().sum((1, -1)) for t in (rescaled, v_cond.unflatten(-1, (-1, p, p)))
            )
            torch.testing.assert_close(found, expected)


def test_texts_of_several_lengths_are_masked():
    with adapt(made("lumina2", torch.float32)) as model:
        prompted, negative = model.encode(PROMPTS, guidance=2.0, max_sequence_length=64).passes
        assert prompted.mask is not None
        assert prompted.mask.sum(1).tolist() == [38, 50, 34]
        assert model.encode([""], guidance=1.0).text == 29  # <bos> and the system prompt
        assert (negative.mask, negative.text) == (None, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dynamic_shift_counts_the_channels(dtype):
    pipe = lumina2(dtype)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_dynamic_shifting=True)
    generators = [generator(p, 0) for p in PROMPTS]
    expected = stock_tokens(pipe, PROMPTS, generator=generators, num_inference_steps=2, **SIZE)
    assert torch.equal(drawn(pipe), expected)


def test_a_folder_in_parts_loads_and_draws_the_same(tmp_path):
    pipe = lumina2()
    pipe.transformer.time_caption_embed.time_proj.scale = 1  # as loaded
    pipe.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("Lumina2Pipeline", "Lumina2Text2ImgPipeline"))  # older uploads
    settings = {"height": 64, "width": 96, "device": "cpu"}
    loaded = Checkpoint(family="lumina2", path=str(tmp_path), **settings)
    loaded.check()
    assert loaded.blocks == 3
    assert torch.equal(drawn(loaded.load(), guidance=2.0), drawn(pipe, guidance=2.0))


def test_texts_beyond_the_positions_are_refused():
    beyond = r"max_sequence_length=300: .* at most 299"
    with adapt(made("lumina2", torch.float32)) as model, pytest.raises(ValueError, match=beyond):
        model.check(None, max_sequence_length=300)
    with pytest.raises(ValueError, match="lumina2 takes at most 299 tokens of text"):
        Checkpoint(family="lumina2", path="any", max_sequence_length=300)

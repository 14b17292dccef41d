"""What Qwen-Image alone has: texts of several lengths, guidance in two passes, an autoencoder of videos."""

import shutil
from typing import Any

import pytest
import torch

from fovea.methods import RAS, Baseline
from fovea.models import Checkpoint, adapt, generate, generator
from tests.models.conftest import PROMPTS, made
from tests.models.test_pipeline import ours, stock
from tests.pipelines import qwen, saved

UNCUT: dict[str, Any] = {"max_sequence_length": 64}


@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["unguided", "guided"])
def test_texts_of_several_lengths_equal_the_pipeline(dtype, scale):
    """The mask of the shorter ones; the negative's is another."""
    pipe, negatives = made("qwen", dtype), ["ugly", "", "a long list of faults"]
    found, flow = ours(pipe, PROMPTS, 64, 96, guidance=scale, negative=negatives, **UNCUT)
    for half in flow.cond.passes:
        assert half.mask is not None
        assert len({*half.mask.sum(1).tolist()}) == 3
    expected = stock(pipe, PROMPTS, 64, 96, true_cfg_scale=scale, negative_prompt=negatives, **UNCUT)
    assert torch.equal(found, expected)


def test_padding_is_not_seen():
    """An image of RAS does not depend on the longer texts beside it."""
    pipe, method = made("qwen", torch.float32), RAS(ratio=0.25, start=1, resets=(3,))
    size = {"height": 64, "width": 96, "steps": 5, "output": "latent"}
    together = generate(pipe, PROMPTS, method=method, batch=3, **size)
    for prompt, x in zip(PROMPTS, together, strict=True):
        alone = generate(pipe, [prompt], method=method, **size)[0]
        torch.testing.assert_close(x, alone, atol=2e-5, rtol=1e-5)


def test_guidance_keeps_each_tokens_length():
    with adapt(made("qwen", torch.float32)) as model:
        generators = [generator("a", 0)]
        size = {"height": 64, "width": 64, "generators": generators}
        flow, plain = (model.flow(["a"], guidance=g, **size) for g in (6.0, 1.0))
        x, sigma = flow.noise(), flow.sigmas()[0]
        guided, given = flow.velocity(x, sigma), plain.velocity(x, sigma)
    assert not torch.allclose(guided, given, atol=1e-2)
    torch.testing.assert_close(guided.norm(dim=-1), given.norm(dim=-1))


def test_the_template_is_as_long_as_the_pipeline_takes_it_for():
    """What stands before a prompt is dropped by its number of tokens, in the trained model's vocabulary."""
    pipe = made("qwen", torch.float32)
    before = pipe.prompt_template_encode.partition("{}")[0]
    assert len(pipe.tokenizer(before)["input_ids"]) == pipe.prompt_template_encode_start_idx
    with adapt(pipe) as model:
        x = [model.encode([p], guidance=1.0).embeds for p in ("a fox", "a fan")]
    assert [len(one[0]) for one in x] == [10, 10]
    assert not torch.equal(*x)


def test_text_stands_behind_the_grid():
    pipe = made("qwen", torch.float32)
    with adapt(pipe) as model:
        encodings = model.encodings(model.grid(64, 144))
    image, text = pipe.transformer.pos_embed([[(1, 4, 9)]], device=torch.device("cpu"), max_txt_seq_len=7)
    assert torch.equal(encodings.tables[0][0], image)
    assert torch.equal(encodings.shared[0][0, :7], text)


@pytest.mark.parametrize(
    "name", ["zero_cond_t", "use_layer3d_rope", "use_additional_t_cond", "guidance_embeds"]
)
def test_transformers_of_other_tasks_are_refused(name):
    other: dict[str, Any] = {"num_layers": 1, name: True}
    pipe = qwen(**other)
    with pytest.raises(TypeError, match=f"its transformer has {name}=True"):
        generate(pipe, ["a"], method=Baseline())


def test_a_folder_of_the_public_layout(tmp_path):
    """Weights in parts with an index, another precision beside them, the tokenizer's files."""
    pipe = made("qwen", torch.float32)
    folder = saved(pipe, tmp_path / "folder")
    for name, own in (("transformer", pipe.transformer), ("text_encoder", pipe.text_encoder)):
        shutil.rmtree(folder / name)
        own.save_pretrained(folder / name, max_shard_size="100KB")
        assert len([*(folder / name).glob("*-of-*.safetensors")]) > 1
    pipe.vae.save_pretrained(folder / "vae", variant="fp16")
    checkpoint = Checkpoint(family="qwen", path=str(folder), height=64, width=96, device="cpu")
    checkpoint.check()
    assert (checkpoint.grid, checkpoint.blocks) == ((4, 6), 3)
    loaded = checkpoint.load()
    loaded.set_progress_bar_config(disable=True)
    for name in ("transformer", "text_encoder", "vae"):
        weights, kept = (getattr(p, name).state_dict() for p in (pipe, loaded))
        assert all(torch.equal(kept[key], value) for key, value in weights.items())
    size = {"height": 64, "width": 96, "steps": 2, "output": "latent"}
    images = [generate(p, ["a fox"], method=Baseline(), **size)[0] for p in (pipe, loaded)]
    torch.testing.assert_close(*images, atol=1e-5, rtol=0)

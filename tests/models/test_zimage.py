"""Z-Image's own: guidance from 0 on, its normalisation, texts of several lengths, a folder in parts."""

import pytest
import torch

from fovea.methods import Steps
from fovea.models import Checkpoint, adapt, generate, generator
from tests.models.conftest import PROMPTS, made
from tests.pipelines import stock_tokens, zimage

SIZE = {"height": 64, "width": 96, "max_sequence_length": 64}


def drawn(pipe, **options):
    found = generate(pipe, PROMPTS, method=Steps(steps=2), output="latent", **SIZE, **options)
    return torch.stack(found)


@pytest.mark.parametrize("ratio", [True, 0.5])
def test_normalised_guidance_is_the_pipelines(ratio):
    """But for the last bit: lengths are sums in another order."""
    pipe, generators = made("zimage", torch.float32), [generator(p, 0) for p in PROMPTS]
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "cfg_normalization": ratio}
    expected = stock_tokens(pipe, PROMPTS, generator=generators, **SIZE, **options)
    found = drawn(pipe, guidance=3.0, cfg_normalization=ratio)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert not torch.allclose(found, drawn(pipe, guidance=3.0), atol=1e-2)


def test_any_guidance_above_zero_guides_and_to_the_end():
    with adapt(made("zimage", torch.float32)) as model:
        assert [model.encode(["a"], guidance=g).guided for g in (0.0, 0.5, 1.0)] == [False, True, True]
        with pytest.raises(ValueError, match=r"cfg_truncation=0\.6: .* end on the way.*method=guidance"):
            model.encode(["a"], cfg_truncation=0.6)


def test_texts_of_several_lengths_are_masked():
    with adapt(made("zimage", torch.float32)) as model:
        mask = model.encode(PROMPTS, guidance=2.0, max_sequence_length=64).mask
        assert mask is not None
        assert mask.sum(1).tolist() == [32, 64, 32, 32, 32, 32]
        assert model.encode(PROMPTS[:1], guidance=2.0, max_sequence_length=64).mask is None


def test_a_folder_in_parts_loads_and_draws_the_same(tmp_path):
    pipe = zimage()
    pipe.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    loaded = Checkpoint(family="zimage", path=str(tmp_path), height=64, width=96, device="cpu")
    loaded.check()
    assert loaded.blocks == 3
    assert torch.equal(drawn(loaded.load(), guidance=2.0), drawn(pipe, guidance=2.0))

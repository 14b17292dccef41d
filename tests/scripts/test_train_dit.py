"""Training speaks the pipelines' language: same signs, same times, same prompts."""

from typing import Any

import pytest
import torch

from fovea.models.pretend import pretend
from scripts import loop, tiny, train_dit, train_vae, velocities

PROMPT = ["a fox, noto style, on a blue ground", "a banana and a cat"]
NARROW = {"lumina": {"hidden": 128, "layers": 1}, "sd3": {"heads": 1, "layers": 2},
          "flux": {"heads": 1, "double": 1, "single": 1}}  # fmt: skip


def pipeline(family: str) -> Any:
    """A narrow pipeline whose every weight matters (zero at the start, some would not)."""
    torch.manual_seed(0)
    pipe = tiny.PIPELINES[family](train_vae.build(tiny.CHANNELS[family], (8, 8, 8)), **NARROW[family])
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("family", tiny.PIPELINES)
@torch.no_grad()
def test_one_step_of_the_pipeline_follows_the_trained_velocity(family):
    pipe = pipeline(family)
    noise = torch.randn(2, tiny.CHANNELS[family], 16, 16)
    v = velocities.velocity(pipe, family)(noise, torch.ones(2), PROMPT)
    given = pipe._pack_latents(noise, *noise.shape) if family == "flux" else noise
    more = {"clean_caption": False} if family == "lumina" else {"max_sequence_length": 32}
    found = pipe(PROMPT, height=64, width=64, num_inference_steps=1, guidance_scale=1.0, latents=given,
                 output_type="latent", **more).images  # fmt: skip
    if family == "flux":
        found = pipe._unpack_latents(found, 64, 64, 4)
    torch.testing.assert_close(found, noise - v, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", tiny.PIPELINES)
def test_text_encoders_learn_with_the_transformer(family):
    pipe = pipeline(family)
    x = torch.randn(2, tiny.CHANNELS[family], 16, 16)
    velocities.velocity(pipe, family)(x, torch.tensor([0.3, 0.8]), PROMPT).pow(2).mean().backward()
    modules = train_dit.trained(pipe)
    assert set(modules) == {k for k in pipe.components if k.startswith("text_encoder")} | {"transformer"}
    for name, module in modules.items():
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert any(g.abs().sum() > 0 for g in grads), name
    assert all(p.grad is None for p in pipe.vae.parameters())


def test_the_export_loads_and_holds_the_average(tmp_path):
    pipe = pipeline("lumina")
    average = {k: torch.full_like(v, 0.5) for k, v in train_dit.trained(pipe).state_dict().items()}
    own = pipe.transformer.pad_token.clone()
    train_dit.export(pipe, average, tmp_path)
    loaded = type(pipe).from_pretrained(tmp_path)
    assert all((p == 0.5).all() for p in loaded.transformer.parameters())
    assert torch.equal(pipe.transformer.pad_token, own)
    assert not [*tmp_path.rglob("*.bin"), *tmp_path.rglob("*.pt")]


def test_sigmas_cover_both_ends_and_shift():
    s = train_dit.sigmas(torch.Generator().manual_seed(0), 4000, 1.0)
    assert 0 <= s.min() < 0.02 < 0.98 < s.max() <= 1
    assert abs(s.median() - 0.5) < 0.02
    assert train_dit.sigmas(torch.Generator().manual_seed(0), 4000, 3.0).median() > 0.7


@torch.no_grad()
@pytest.mark.parametrize("to", ["flux", "sd3"])
def test_flux_and_sd3_can_begin_from_each_other(to):
    """Patches are permuted as the families pack them: without blocks, SD3 and FLUX are then the same."""
    pipes = {family: pipeline(family) for family in ("sd3", "flux")}
    sd3, flux = pipes.values()
    modules, other = train_dit.trained(pipes[to]), pipes["sd3" if to == "flux" else "flux"]
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.zero_()
    assert train_dit.load_matching(modules, to, other) > 60
    x = torch.randn(1, 16, 4, 4)
    image = sd3.transformer.pos_embed.proj(x).flatten(2).transpose(1, 2)
    tokens = flux._pack_latents(x, *x.shape)
    torch.testing.assert_close(flux.transformer.x_embedder(tokens), image)
    out = sd3.transformer.proj_out(image).unflatten(1, (2, 2)).unflatten(3, (2, 2, 16))
    unpatched = out.permute(0, 5, 1, 3, 2, 4).flatten(2, 3).flatten(3)
    found = flux._unpack_latents(flux.transformer.proj_out(image), 16, 16, 4)
    torch.testing.assert_close(found, unpatched)
    ids = torch.randint(0, 50, (1, 8))
    torch.testing.assert_close(sd3.text_encoder_3(ids)[0], flux.text_encoder_2(ids)[0])
    clips = [pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-1] for pipe in (sd3, flux)]
    torch.testing.assert_close(*clips)


def test_a_pipeline_can_go_on_from_its_own_kind():
    one, other = pipeline("lumina"), pipeline("lumina")
    for parameter in train_dit.trained(one).parameters():
        parameter.data.zero_()
    taken = train_dit.load_matching(train_dit.trained(one), "lumina", other)
    expected = train_dit.trained(other).state_dict()
    assert taken == len(expected)
    assert all(torch.equal(v, expected[k]) for k, v in train_dit.trained(one).state_dict().items())


@pytest.mark.parametrize("family", tiny.PIPELINES)
@torch.no_grad()
def test_captions_that_were_read_before_are_as_the_pipeline_reads_them(family):
    pipe = pipeline(family)
    reader, tokenizers = velocities.reading(pipe, PROMPT)
    x, sigma = torch.randn(3, tiny.CHANNELS[family], 16, 16), torch.tensor([0.3, 0.8, 0.5])
    expected = velocities.velocity(pipe, family)(x, sigma, [PROMPT[1], PROMPT[0], ""])
    for tokenizer in tokenizers:
        tokenizer.rows = torch.tensor([1, 0, 2])
    found = velocities.velocity(reader, family)(x, sigma, [""] * 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert type(pipe.tokenizer) is not type(reader.tokenizer)


@pytest.mark.parametrize("family", tiny.PIPELINES)
def test_a_step_never_waits_for_a_gpu(family, tmp_path):
    """Else it could not be a CUDA graph."""
    pipeline(family).save_pretrained(tmp_path)
    with pretend() as gpu:
        pipe = gpu.load(tmp_path, type(pipeline(family)).__name__, torch.float32)
        modules = train_dit.trained(pipe)
        reader, tokenizers = velocities.reading(pipe, PROMPT)
        v = velocities.velocity(reader, family)

        _, muon = loop.optimisers(modules, 1e-3, 0.01, 3e-3)
        x, sigma = torch.randn(2, tiny.CHANNELS[family], 16, 16, device="cuda"), torch.rand(2, device="cuda")
        for tokenizer in tokenizers:
            tokenizer.rows = torch.tensor([0, 1], device="cuda")
        for _ in range(2):
            gpu.waits.clear()
            v(x, sigma, [""] * len(x))  # backwards, autograd's own engine runs what this recorded
            for parameter in modules.parameters():
                parameter.grad = torch.zeros_like(parameter)
            torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
            muon.step()  # AdamW is one kernel
        assert gpu.waits == [], gpu.waits

"""Weights that cannot be had are refused in seconds, with the ways out."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import LuminaPipeline
from pydantic import ValidationError

from models import Checkpoint, MissingWeights, architectures, checkpoint, generate, weights_are_random
from models.random_weights import build
from tests.models.conftest import made
from tests.models.test_generate import SMALL, euler


@pytest.fixture
def saved(tmp_path):
    """A tiny Lumina on disk in float16, under the pipeline's old name."""
    pipe = made("lumina", torch.float32)
    pipe.save_pretrained(tmp_path / "tiny", safe_serialization=True)
    index = tmp_path / "tiny" / "model_index.json"
    index.write_text(index.read_text().replace("LuminaPipeline", "LuminaText2ImgPipeline"))
    return tmp_path / "tiny"


def of(path, family="lumina", **fields):
    return Checkpoint(family=family, path=str(path), height=64, width=96, device="cpu", **fields)


def refused(check):
    with pytest.raises(MissingWeights) as error:
        check.check()
    text = str(error.value)
    for way in ("model.path=", "model=lumina_tiny", "model.weights=random"):
        assert way in text
    return text


def test_a_local_folder_is_found_checked_and_loaded(saved):
    check = of(saved, dtype="bfloat16")
    check.check()
    pipe = check.load()
    assert isinstance(pipe, LuminaPipeline)
    assert pipe.transformer.dtype == torch.bfloat16
    assert not weights_are_random(pipe)
    own = made("lumina", torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    images = [generate(p, ["a fox"], method=euler, output="latent", **SMALL)[0] for p in (pipe, own)]
    assert torch.equal(*images)


def test_a_folder_is_found_from_where_one_is(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    of("tiny").check()
    monkeypatch.chdir("/")
    monkeypatch.setattr(checkpoint, "ROOT", saved.parent)
    of("tiny").check()


def test_what_is_not_there_is_refused(saved, tmp_path):
    assert "there is no such folder" in refused(of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert "no model_index.json" in refused(of(tmp_path / "empty"))
    assert "holds a LuminaText2ImgPipeline, not a FluxPipeline" in refused(of(saved, family="flux"))
    (saved / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    assert "transformer lacks its .safetensors" in refused(of(saved))


def test_missing_shards_are_named(saved):
    shards = {"weight_map": {"a": "one-of-2.safetensors", "b": "two-of-2.safetensors"}}
    (saved / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(shards))
    (saved / "transformer" / "one-of-2.safetensors").write_bytes(b"")
    assert "lacks two-of-2.safetensors" in refused(of(saved))


@pytest.mark.parametrize(
    ("error", "reason"),
    [("GatedRepoError", "it is gated"), ("RepositoryNotFoundError", "no such model"), (None, "cannot be reached")],
)
def test_the_hubs_refusals(monkeypatch, error, reason):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_, **__):
        kind = getattr(errors, error) if error else ConnectionError
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    assert reason in refused(of("nobody/nothing-of-this-name"))


def test_too_little_memory(saved, monkeypatch):
    import psutil

    small = type("memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert "float32 weights take" in refused(of(saved))
    assert "cpu has 0 GiB free" in refused(of("any", weights="random", architecture="lumina"))


def test_parameters_are_read_from_the_headers(saved):
    files = checkpoint.weight_files(saved)
    pipe = made("lumina", torch.float32)
    modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert sum(map(checkpoint.parameters, files)) == sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 100}, "height=100 is not a multiple of 16 pixels; the nearest is 96"),
        ({"width": 0}, "greater than 0"),
        ({"weights": "random"}, "weights=random needs a full-size architecture"),
        ({"dtype": "int8"}, "'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"device": "gpu"}, "should match pattern"),
        ({"guidance": float("nan")}, "finite number"),
        ({"seeds": 3}, "Unexpected keyword argument"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Checkpoint(**{"family": "lumina", "path": "a/b"} | fields)


def test_refused_before_torch_is_loaded():
    code = (
        "import sys; sys.path.insert(0, '.'); from study.light import light; "
        "c = light('models.checkpoint.Checkpoint')(family='lumina', path='assets/absent')\n"
        "try: c.check()\n"
        "except RuntimeError as e: print(e, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkpoint.ROOT, check=True)
    assert "Three ways out" in run.stdout
    assert run.stdout.endswith("False\n")


def test_random_weights_of_every_architecture():
    """At full width and depth without memory; then shrunk, for real: finite, seeded, and marked."""
    for name, architecture in architectures.ARCHITECTURES.items():
        kind, config = architecture["transformer"]
        import diffusers

        with torch.device("meta"):
            transformer = getattr(diffusers, kind)(**config)
        millions = sum(p.numel() for p in transformer.parameters()) / 1e6
        assert millions == pytest.approx({"sd3": 2028, "sd35": 2243, "lumina": 1755, "flux": 11901}[name], rel=1e-3)
        small = {"num_layers": 1} | ({"num_single_layers": 1} if name == "flux" else {})
        assert config | small != config


def test_random_weights_draw_something(name):
    a, b = made(name, torch.float32), made(name, torch.float32)
    assert weights_are_random(a)
    x = generate(a, ["a"], method=euler, output="latent", **SMALL)[0]
    assert torch.isfinite(x).all()
    assert 0.1 < x.std() < 30
    assert torch.equal(x, generate(b, ["a"], method=euler, output="latent", **SMALL)[0])


def test_random_weights_are_built_in_their_dtype():
    tiny = {"pipeline": ("LuminaPipeline", {})} | {
        part: (type(getattr(made("lumina", torch.float32), part)).__name__, dict(config))
        for part, config in {}.items()
    }
    assert tiny["pipeline"] == ("LuminaPipeline", {})
    assert made("lumina", torch.bfloat16).vae.dtype == torch.bfloat16
    assert build is not None

"""Weights that cannot be had are refused in seconds, with the ways out."""

import json
import subprocess
import sys
from itertools import pairwise

import diffusers
import huggingface_hub
import psutil
import pytest
import torch
from diffusers import LuminaPipeline
from pydantic import ValidationError

from fovea.eval.speed import graphs
from fovea.methods import RAS, Caching, Steps
from fovea.methods.caches import TaylorSeer
from fovea.models import (
    Checkpoint,
    MissingWeights,
    checkpoint,
    families,
    folder,
    generate,
    quantize,
    random_weights,
    weights_are_random,
)
from fovea.models.family import Size
from fovea.models.quantize import quantise
from tests.models.conftest import made
from tests.models.test_sampling import SMALL, euler
from tests.pipelines import PIPELINES


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
    [
        ("GatedRepoError", "it is gated"),
        ("RepositoryNotFoundError", "no such model"),
        (None, "cannot be reached"),
    ],
)
def test_the_hubs_refusals(monkeypatch, error, reason):
    def refuse(*_, **__):
        kind = getattr(huggingface_hub.errors, error) if error else ConnectionError
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    assert reason in refused(of("nobody/nothing-of-this-name"))


def test_too_little_memory(saved, monkeypatch):
    small = type("memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert "in float32 they take" in refused(of(saved))
    assert "cpu has 0.0 GiB free" in refused(of("any", weights="random", architecture="lumina"))


def test_parameters_are_read_from_the_headers(saved):
    pipe = made("lumina", torch.float32)
    modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert folder.parameters(saved) == sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 100}, "height=100 is not a multiple of 16 pixels; the nearest is 96"),
        ({"width": 0}, "greater than 0"),
        ({"weights": "random"}, "weights=random needs a full-size architecture"),
        ({"dtype": "int8"}, "'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"device": "gpu"}, "should match pattern"),
        ({"guidance": float("nan")}, "finite number"),
        ({"max_sequence_length": 513}, "lumina takes at most 512 tokens of text"),
        ({"family": "qwen", "max_sequence_length": 1025}, "qwen takes at most 1024 tokens of text"),
        ({"seeds": 3}, "Unexpected keyword argument"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Checkpoint(**{"family": "lumina", "path": "a/b"} | fields)


def test_refused_before_diffusers_is_loaded():
    code = """
import sys
from fovea.models import Checkpoint
try:
    Checkpoint(family="lumina", path="assets/absent").check()
except RuntimeError as error:
    print(error, sorted({"diffusers", "transformers"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=checkpoint.ROOT)
    assert "Three ways out" in run.stdout, run.stderr
    assert run.stdout.endswith("[]\n")


def test_every_size_is_named_once():
    assert len(families.SIZES) == sum(len(family.sizes) for family in families.FAMILIES.values())
    with pytest.raises(ValidationError, match="'sd3', 'lumina', 'flux'"):
        Checkpoint(family="sdxl", path="a/b")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="'flux_schnell'"):
        Checkpoint(family="flux", path="a/b", architecture="flux3")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", families.SIZES)
def test_architectures_have_the_published_sizes(name):
    size = families.SIZES[name]
    kind, config = size.architecture["transformer"]
    with torch.device("meta"):
        transformer = getattr(diffusers, kind)(**config)
    assert sum(p.numel() for p in transformer.parameters()) / 1e6 == pytest.approx(size.millions, rel=1e-3)


def test_random_weights_are_built_in_place_marked_and_seeded(monkeypatch):
    """Of Lumina's architecture with thinner layers; the rest of the code path is the full size's."""
    thin = {
        "transformer": {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2},
        "text_encoder": {"intermediate_size": 64},
        "vae": {"block_out_channels": (32,) * 4, "layers_per_block": 1},
    }
    full = families.SIZES["lumina"].architecture
    small = full | {part: (full[part][0], full[part][1] | config) for part, config in thin.items()}
    monkeypatch.setitem(families.SIZES, "lumina", Size(small, (0.1, 0.1), 1))
    check = of("any/thing", weights="random", architecture="lumina", dtype="bfloat16")
    pipes = [check.load(), check.load()]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        assert weights_are_random(pipe)
        modules = pipe.transformer, pipe.vae, pipe.text_encoder
        assert {p.dtype for module in modules for p in module.parameters()} == {torch.bfloat16}
    a, b = (generate(pipe, ["a fox"], method=euler, output="latent", **SMALL)[0] for pipe in pipes)
    assert torch.equal(a, b)
    assert torch.isfinite(a).all()
    assert 0.1 < a.float().std() < 30


def test_random_weights_of_each_family(pipe):
    x = generate(pipe, ["a"], method=euler, output="latent", **SMALL)[0]
    assert torch.isfinite(x).all()
    assert 0.1 < x.std() < 30


@pytest.mark.parametrize(
    ("family", "name", "blocks"),
    [
        ("flux", "flux", 57),
        ("flux", "flux_schnell", 57),
        ("sd3", "sd35", 24),
        ("qwen", "qwen_image", 60),
        ("krea2", "krea2_turbo", 28),
    ],
)
def test_the_blocks_of_a_random_model_are_known(family, name, blocks):
    kind, config = families.SIZES[name].architecture["transformer"]
    with torch.device("meta"):
        made = getattr(diffusers, kind)(**config)
    lists = (made.transformer_blocks, getattr(made, "single_transformer_blocks", ()))
    assert of("x", family, weights="random", architecture=name).blocks == blocks == sum(map(len, lists))


def test_offloaded_it_makes_the_same_images(saved):
    plain, offloaded = (of(saved, offload=how, dtype="float32") for how in ("none", "model"))
    methods = Steps(steps=2), RAS(ratio=0.5, steps=2, start=1, resets=())
    options = SMALL | {"output": "latent", "batch": 1}
    before, after = (
        [x for method in methods for x in generate(pipe, ["a", "b"], method=method, **options)]
        for pipe in (plain.load(), offloaded.load())
    )
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_layers_are_offloaded_from_a_gpu_alone(saved):
    with pytest.raises(MissingWeights, match=r"has none: use model\.offload=none or model"):
        of(saved, offload="sequential").check()
    with pytest.raises(ValidationError, match="use offload=model"):
        of(saved, offload="sequential", compile="blocks")


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        ("int8", "float32"),
        ("int8", "bfloat16"),
        ("int8_dynamic", "bfloat16"),
        ("fp8", "float32"),
        ("nf4", "float32"),
    ],
)
def test_quantised_it_makes_nearly_the_same_images(saved, how, dtype):
    """What diffusers' configurations load is what the layers of a loaded pipeline become."""
    check = of(saved, quantize=how, dtype=dtype, offload="model")
    check.check()
    pipe, other = check.load(), of(saved, dtype=dtype).load()
    for p in (pipe, other):
        p.set_progress_bar_config(disable=True)
    options = SMALL | {"output": "latent", "method": Steps(steps=2), "guidance": 1.0}
    plain = generate(other, ["a"], **options)[0].float()
    quantise(other.transformer, how)
    quantised, in_place = (generate(p, ["a"], **options)[0].float() for p in (pipe, other))
    assert torch.equal(quantised, in_place)
    assert 0 < (quantised - plain).norm() / plain.norm() < 0.4


def test_random_weights_are_quantised(monkeypatch):
    pipe = PIPELINES["flux"]()
    monkeypatch.setattr(random_weights, "build", lambda *_: pipe)
    of("x", "flux", weights="random", architecture="flux", quantize="nf4").load()
    assert type(pipe.transformer.proj_out).__name__ == "Linear4bit"


def test_what_cannot_be_quantised_here_is_refused(saved, monkeypatch):
    with pytest.raises(
        MissingWeights, match=r"needs a GPU of compute capability 8\.9, and this is a CPU: fp8 or"
    ):
        of(saved, quantize="fp8_dynamic").check()
    with pytest.raises(ValidationError, match="use offload=model"):
        of(saved, quantize="int8", offload="sequential")
    with pytest.raises(ValidationError, match="'int8_dynamic', 'fp8', 'fp8_dynamic' or 'nf4'"):
        of(saved, quantize="int4")
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"needs torchao, which is not installed: pip install"):
        of(saved, quantize="int8").check()


def test_weights_in_fewer_bits_need_less_memory(saved, monkeypatch):
    need = folder.parameters(saved)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("memory", (), {"available": 2 * need}))
    assert "in float32 they take" in refused(of(saved))
    of(saved, quantize="nf4").check()


@pytest.mark.parametrize("kernel", ["math", "flash"])
def test_torchs_kernel_of_attention_is_chosen(saved, kernel):
    check = of(saved, attention=kernel, dtype="float32")
    check.check()
    pipe, plain = check.load(), of(saved, dtype="float32").load()
    for p in (pipe, plain):
        p.set_progress_bar_config(disable=True)
    found, before = (
        generate(p, ["a"], method=Steps(steps=2), output="latent", **SMALL)[0] for p in (pipe, plain)
    )
    assert torch.equal(found, before) == (kernel == "flash")  # that is what torch picks on a CPU
    torch.testing.assert_close(found, before, atol=1e-4, rtol=0)


def test_kernels_of_attention_that_are_not_there_are_refused(saved):
    """A CPU has neither; and flux attends under no mask, lumina does."""
    with pytest.raises(
        MissingWeights, match="lumina's attention under a mask in float32 on cpu: auto, math, flash"
    ):
        of(saved, attention="cudnn").check()
    with pytest.raises(MissingWeights, match="flux's attention in bfloat16 on cpu"):
        of(
            "x", "flux", weights="random", architecture="flux", attention="efficient", dtype="bfloat16"
        ).check()


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("flux", {"num_layers": 1, "num_single_layers": 9}),
        ("lumina", {"num_layers": 9}),
        ("krea2", {"num_layers": 9}),
    ],
)
def test_a_block_is_compiled_once_for_all_layers(family, layers, monkeypatch):
    """And for two numbers of tokens: further ratios, dense steps between and caches within the blocks find
    their graphs. By dynamo alone, without kernels."""
    pipe, options = PIPELINES[family](**layers), SMALL | {"output": "latent", "steps": None}
    sparse = [RAS(ratio=r, steps=2, start=1, resets=()) for r in (0.5, 0.25, 0.125)]
    methods = [Steps(steps=2), *sparse, Steps(steps=2), Caching(TaylorSeer(), steps=4)]
    stock = [generate(pipe, ["a"], method=method, **options)[0] for method in methods]
    monkeypatch.setattr(Checkpoint, "load_pipeline", lambda *_: pipe)
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compiled(block, backend="eager"))
    check = of("any/thing", family=family, weights="random", architecture=family, compile="blocks")
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        check.load()
        found = [graphs()]
        for method, before in zip(methods, stock, strict=True):
            assert torch.equal(generate(pipe, ["a"], method=method, **options)[0], before)
            found.append(graphs())
    new = [after - before for before, after in pairwise(found)]
    assert 0 < new[0] < 10
    assert 0 < new[1] < 20
    assert new[2:] == [0] * 4


@pytest.mark.parametrize(
    ("family", "guidance", "used"),
    [
        ("flux", 4.0, False),
        ("sd3", 1.0, False),
        ("sd3", 1.5, True),
        ("zimage", 0.5, True),
        ("krea2", 0.0, False),
    ],
)
def test_a_negative_prompt_that_no_evaluation_has_is_refused(tmp_path, family, guidance, used):
    PIPELINES[family]().save_pretrained(tmp_path)
    given = {"family": family, "path": str(tmp_path), "guidance": guidance}
    assert Checkpoint(**given, negative=" ").negative == " "
    if used:
        assert Checkpoint(**given, negative="blurry").negative == "blurry"
    else:
        with pytest.raises(ValidationError, match="negative=blurry: has no effect at guidance="):
            Checkpoint(**given, negative="blurry")


@pytest.mark.parametrize(
    ("family", "architecture", "used"),
    [
        ("flux", "flux", False),
        ("flux", "flux_schnell", True),
        ("flux", None, True),  # nothing is known of it
        ("flux2_klein", "flux2_klein_4b", False),
        ("flux2_klein", "flux2_klein_base_4b", True),
        ("sd3", "sd3", True),
    ],
)
def test_of_a_hub_model_that_is_not_here_the_architecture_tells(family, architecture, used):
    given = {"family": family, "path": "nobody/nothing", "architecture": architecture, "guidance": 3.5}
    if used:
        assert Checkpoint(**given, negative="blurry").negative == "blurry"
    else:
        with pytest.raises(ValidationError, match=r"negative=blurry: has no effect at guidance=3\.5"):
            Checkpoint(**given, negative="blurry")

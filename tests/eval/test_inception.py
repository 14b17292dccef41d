"""The FID Inception: the same network as TensorFlow's graph, by structure and by value, from whatever
file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fovea.eval import Unavailable, inception
from fovea.eval.inception import PUBLIC, Inception, fingerprint, mapped, opened, packaged, read
from fovea.eval.inception_v3 import InceptionV3
from tests.eval.inceptions import noise, torchscript


@pytest.fixture(scope="module")
def network():
    return opened(packaged()[0], "cpu")[0]


@pytest.fixture(scope="module")
def inputs():
    return noise(4).float() / 127.5 - 1


@pytest.fixture(scope="module")
def layers():
    return torchscript().net.layers


@torch.inference_mode()
def test_pooled_features_are_those_of_nvidias_translation_of_the_graph(network, inputs):
    expected = torchscript()(inputs)
    found = network(inputs)["pool"]
    assert found.shape == (4, 2048)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_spatial_features_are_the_nodes_that_the_two_codes_name(network, inputs, layers):
    x = inputs
    for name in ("conv", "conv_1", "conv_2", "pool0", "conv_3", "conv_4", "pool1", "mixed"):
        x = getattr(layers, name)(x)
    for i in range(1, 6):
        x = getattr(layers, f"mixed_{i}")(x)
    adm = layers.mixed_6.conv(x)[:, :7].flatten(1)  # ADM's evaluator: mixed_6/conv:0, [..., :7]
    ras = layers.mixed_7(layers.mixed_6(x))[:, :7].flatten(1)  # pytorch-fid's block of 768 channels, [:, :7]
    assert adm.shape == ras.shape == (4, 7 * 17 * 17)
    for block, expected in (("Mixed_6d", adm), ("Mixed_6e", ras)):
        found = network(inputs, spatial=block)["spatial"]
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_structure_is_pytorch_fids(network):
    """Its 94 convolutions by name and shape, of which all file mappings follow."""
    from cleanfid.inception_pytorch import FIDInceptionA, FIDInceptionC, FIDInceptionE_1  # a copy of it

    state = network.state_dict()
    assert sum(key.endswith("conv.weight") for key in state) == 94
    for name, theirs in (
        ("Mixed_5c", FIDInceptionA(256, pool_features=64)),
        ("Mixed_6d", FIDInceptionC(768, channels_7x7=160)),
        ("Mixed_7b", FIDInceptionE_1(1280)),
    ):
        ours = {k.removeprefix(f"{name}."): v.shape for k, v in state.items() if k.startswith(name)}
        assert ours == {k: v.shape for k, v in theirs.state_dict().items()}


def test_every_layout_of_the_file_gives_the_same_network(network, tmp_path):
    state = mapped(read(packaged()[0]), network)
    torch.save(
        state | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "a.pth"
    )
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "b.safetensors")
    for file in (*sorted(tmp_path.iterdir()), packaged()[0]):
        assert fingerprint(mapped(read(file), network)) == inception.NUMBERS_SHA256


def test_what_is_not_the_fid_inception_is_refused(network, tmp_path):
    state = mapped(read(packaged()[0]), network)
    other = state | {"Conv2d_1a_3x3.conv.weight": state["Conv2d_1a_3x3.conv.weight"] + 1e-3}
    torch.save(other, tmp_path / "other.pth")
    torch.save({k: v for k, v in state.items() if not k.startswith("Mixed_7c")}, tmp_path / "part.pth")
    torch.save({k: v for k, v in state.items() if not k.startswith("Conv2d_1a")}, tmp_path / "stranger.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for name, says in (
        ("other", "other numbers"),
        ("part", "does not hold"),
        ("stranger", "does not hold"),
        ("text", "does not hold"),
        ("none", "no file"),
    ):
        with pytest.raises(Unavailable, match=says) as found:
            Inception(weights=tmp_path / f"{name}.pth").load()
        assert "inception.weights=FILE" in found.value.remedy


def test_a_torchscript_is_run_only_if_it_is_the_published_one(tmp_path, monkeypatch):
    torchscript().net.save(tmp_path / "other.pt")
    monkeypatch.setattr("torch.jit.load", lambda *_, **__: pytest.fail("a program of unknown origin was run"))
    with pytest.raises(Unavailable, match="only the published one is run"):
        Inception(weights=tmp_path / "other.pt").load()


def test_looks_into_the_hubs_cache_and_then_for_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert Inception().file() == packaged()[0]
    file = tmp_path / "hub" / "checkpoints" / PUBLIC[0]
    file.parent.mkdir(parents=True)
    file.touch()
    assert Inception().file() == file
    file.unlink()
    monkeypatch.setattr(inception, "PACKAGED_SHA256", "of another file")
    with pytest.raises(Unavailable, match="missing"):
        Inception().file()


def test_random_numbers_in_the_public_files_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / PUBLIC[0]
    file.parent.mkdir(parents=True)
    torch.save(InceptionV3().state_dict(), file)
    with pytest.raises(Unavailable, match="other numbers"):
        Inception(batch=31).load()


def test_features_do_not_depend_on_the_batch():
    images = noise(5, 60, 80)
    alone = Inception("adm", device="cpu", batch=1).load()
    for name, together in Inception("adm", device="cpu", batch=4).load().images(images).items():
        one_by_one = torch.cat([alone.images(images[i : i + 1])[name] for i in range(5)])
        assert torch.allclose(together, one_by_one, atol=1e-5, rtol=1e-5)


def test_pictures_and_tensors_agree():
    from PIL import Image

    extractor = Inception("legacy_pytorch", device="cpu").load()
    images = noise(2, 30, 40, seed=3)
    pictures = [Image.fromarray(np.ascontiguousarray(x.permute(1, 2, 0).numpy())) for x in images]
    found, expected = extractor.pictures(pictures), extractor.images(images)
    assert {name: x.shape for name, x in found.items()} == {"pool": (2, 2048), "spatial": (2, 2023)}
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_identity_tells_modes_and_not_devices_apart():
    modes = [Inception(resize, device="cpu").load().identity for resize in ("clean", "legacy_pytorch", "adm")]
    assert [m["resize"] for m in modes] == ["clean", "legacy_pytorch", "adm"]
    assert [m["spatial"] for m in modes] == [None, "Mixed_6e", "Mixed_6d"]
    assert replace(Inception(), device="cpu", batch=3).load().identity == modes[0]

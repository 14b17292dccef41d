"""What holds for every distance to a reference set, on a network small enough for many images."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pydantic import ValidationError

from fovea.eval import Samples
from fovea.eval.dinov2 import DINOv2Distance
from fovea.eval.distance import added
from fovea.eval.encoder import Encoder, Parts
from fovea.eval.fid import FID
from fovea.eval.fid_inf import FIDInfinity
from fovea.eval.inception import Inception
from fovea.eval.kid import KID, SubsetKID
from fovea.eval.reference import Reference
from fovea.eval.sfid import SpatialFID
from tests.eval.inceptions import noise

CONF = Path(__file__).parents[2] / "conf" / "metric"
CONFIGS = {
    "fid": FID(),
    "fid_legacy": FID(Inception("legacy_pytorch")),
    "fid_adm": FID(Inception("adm")),
    "sfid": SpatialFID(),
    "sfid_ras": SpatialFID(Inception("legacy_pytorch")),
    "kid": KID(),
    "kid_subsets": SubsetKID(Inception("adm")),
    "fid_inf": FIDInfinity(),
    "fd_dinov2": DINOv2Distance(),
}


def small(config):
    """Six features: of each colour its mean and its spread."""

    def network(x):
        found = torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)
        return dict.fromkeys(("pool", "spatial", "class"), found)

    identity = {"network": "small", "resize": getattr(config, "resize", None)}
    parts = Parts(network, lambda image: image.float() / 255)
    return Encoder(lambda: parts, identity, "cpu", config.batch)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setattr("fovea.eval.inception.load", small)
    monkeypatch.setattr("fovea.eval.dino.of_authors", small)
    monkeypatch.setattr("fovea.eval.fid_inf.DIMENSIONS", 6)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    for i, x in enumerate(noise(30, 24, 20, seed=1)):
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return Reference(folder, cache=None)


@pytest.fixture(params=["fid", "sfid", "kid", "kid_subsets", "fid_inf", "fd_dinov2"])
def metric(request, reference, tmp_path):
    file = tmp_path / "weights"
    file.touch()
    changes = {"kid_subsets": {"subsets": 5, "size": 12}, "fd_dinov2": {"backbone": {"weights": file}}}
    return dataclasses.replace(CONFIGS[request.param], reference=reference, **changes.get(request.param, {}))


@pytest.fixture
def samples():
    images = noise(20, 24, 20)
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1).to(torch.uint8)
    return Samples(blurred, [f"prompt {i}" for i in range(20)], [str(i) for i in range(20)], images)


def test_scores_are_those_promised_with_error_and_paired_difference(metric, samples):
    metric.check()
    (score,) = metric(samples)
    assert {score.name: score.facts} == metric.scores
    assert score.n == len(score.per_image) == 20
    assert math.isfinite(score.value)
    assert score.se > 0
    assert sum(score.per_image) / 20 == pytest.approx(score.value)
    (dense,) = metric(dataclasses.replace(samples, images=samples.dense))
    assert score.difference.value == pytest.approx(score.value - dense.value, rel=1e-6)
    assert score.difference.low < score.difference.value < score.difference.high
    assert (dense.difference.value, dense.difference.low, dense.difference.high) == (0, 0, 0)
    assert metric(dataclasses.replace(samples, dense=None))[0].difference is None


def test_same_samples_same_score_in_any_batch(metric, samples):
    first = metric(samples)
    assert metric(samples) == first
    alone = {"batch": 1}
    key = "backbone" if hasattr(metric, "backbone") else "inception"
    other = dataclasses.replace(metric, **{key: dataclasses.replace(getattr(metric, key), **alone)})
    assert other(samples)[0].value == pytest.approx(first[0].value, rel=1e-5)


def test_what_cannot_be_had_is_no_number(metric, samples):
    def why(metric, samples):
        (score,) = metric(samples)
        assert score.value is score.se is score.per_image is score.difference is None
        return score.unavailable

    assert "random" in why(metric, dataclasses.replace(samples, random_weights=True))
    one = Samples(samples.images[:1], ["-"], ["0"])
    assert any(word in why(metric, one) for word in ("one image", "few", "three", "subsets"))
    for changes, says in (
        ({"path": None}, "no reference images are given"),
        ({"count": 31}, "30 images in .* not 31"),
    ):
        broken = dataclasses.replace(metric, reference=dataclasses.replace(metric.reference, **changes))
        with pytest.raises(Exception, match=says):
            broken.check()
        assert why(broken, samples)
    larger = Samples(samples.images.repeat(1, 1, 2, 2), samples.prompts, samples.keys)
    assert "24 x 20" in why(metric, larger)


def test_only_what_depends_on_n_says_so(metric, samples):
    assert metric(samples)[0].facts.biased == isinstance(metric, FID | SpatialFID | DINOv2Distance)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_the_defaults(name):
    assert instantiate(OmegaConf.load(CONF / f"{name}.yaml")) == CONFIGS[name]


def test_names_tell_every_score_apart():
    names = [name for metric in CONFIGS.values() for name in metric.scores]
    assert names == [
        "fid[clean]",
        "fid[legacy_pytorch]",
        "fid[adm]",
        "sfid[adm]",
        "sfid[mixed_6e]",
        "kid[clean]",
        "kid[adm,100x1000]",
        "fid_inf[clean]",
        "fd[dinov2]",
    ]


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (Inception, {"resize": "bilinear"}),
        (Inception, {"batch": 0}),
        (Inception, {"device": "tpu"}),
        (FID, {"refrence": "x"}),
        (FID, {"reference": {"size": "other"}}),
        (FID, {"reference": {"count": 1}}),
        (FIDInfinity, {"points": 2}),
        (FIDInfinity, {"smallest": 1.0}),
        (SubsetKID, {"size": 2}),
    ],
)
def test_configs_are_closed_and_ranged(cls, arguments):
    with pytest.raises(ValidationError, match=next(iter(arguments))):
        cls(**arguments)


def test_what_the_dense_images_add_is_computed_once(reference, samples, tmp_path, monkeypatch):
    metric = FID(reference=dataclasses.replace(reference, cache=tmp_path))
    cells = [samples, dataclasses.replace(samples, images=samples.images.flip(3))]
    alone = []
    for cell in cells:
        added.cache_clear()
        alone.append(metric(cell))
    added.cache_clear()
    asked = []

    def adds(self, known, n, plain=FID.adds):
        asked.append(n)
        return plain(self, known, n)

    monkeypatch.setattr(FID, "adds", adds)
    assert [metric(cell) for cell in cells] == alone
    assert len(asked) == 3

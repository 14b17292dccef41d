"""What holds for every metric: it gives what it promised, with n and error, and refuses with a reason."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pydantic import ValidationError

from fovea.eval import Samples, Score, Unavailable, quality
from fovea.eval.backbone import Backbone
from fovea.eval.clipscore import CLIPScore
from fovea.eval.facts import Facts
from fovea.eval.fidelity import PSNR, SSIM
from fovea.eval.frechet import FrechetDistance
from fovea.study.config import groups

CONF = Path(__file__).parents[2] / "conf" / "eval"
FD = Facts("Fréchet distance", "lower", "distance", biased=True)


def suite(name):
    """A suite's metrics by name, each from its own file."""
    names = groups.suite(name)
    return {key: instantiate(OmegaConf.load(CONF.parent / "metric" / f"{key}.yaml")) for key in names}


@pytest.fixture(params=["psnr", "ssim", "fd", "clip_score"])
def metric(request, backbone, reference):
    return {
        "psnr": PSNR(),
        "ssim": SSIM(),
        "fd": FrechetDistance(backbone=backbone, reference=reference, cache=None),
        "clip_score": CLIPScore(backbone=backbone),
    }[request.param]


def test_scores_are_those_promised_with_n_and_standard_error(metric, samples):
    metric.check()
    scores = metric(samples)
    assert {s.name: s.facts for s in scores} == metric.scores
    for s in scores:
        assert s.n == 10
        assert math.isfinite(s.value)
        assert s.se >= 0
        assert s.per_image is None or len(s.per_image) == 10


def test_random_weights_get_no_number(metric, samples):
    scores = metric(dataclasses.replace(samples, random_weights=True))
    assert {s.name for s in scores} == set(metric.scores)
    for s in scores:
        assert s.value is s.se is s.per_image is s.difference is None
        assert "random" in s.unavailable
        assert s.remedy


def test_same_samples_same_scores(metric, samples):
    assert metric(samples) == metric(samples)


def test_an_image_scores_the_same_in_any_batch(metric, samples):
    backwards = Samples(
        samples.images.flip(0), samples.prompts[::-1], samples.keys[::-1], samples.dense.flip(0)
    )
    for a, b in zip(metric(samples), metric(backwards), strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-5)
        if a.per_image is not None:
            assert b.per_image[::-1] == pytest.approx(a.per_image, rel=1e-5)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_builds_and_names_its_scores_apart(path):
    names = [name for metric in suite(path.stem).values() for name in metric.scores]
    assert len(set(names)) == len(names)


def test_the_default_suite_is_the_defaults():
    metrics = suite("emoji")
    assert metrics == {
        "psnr": PSNR(),
        "ssim": SSIM(),
        "fd_emoji": FrechetDistance(),
        "clip_score_emoji": CLIPScore(),
    }
    assert metrics["fd_emoji"].name == "fd[emoji]"
    assert metrics["clip_score_emoji"].name == "clip_score[emoji]"


def test_a_plain_mapping_makes_a_backbone():
    assert CLIPScore(backbone={"name": "emoji"}) == CLIPScore()


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (PSNR, {"range": 1}),
        (FrechetDistance, {"refrence": "x"}),
        (FrechetDistance, {"cache": 1}),
        (CLIPScore, {"backbone": {"nam": "x"}}),
        (Backbone, {"batch": 0}),
        (Backbone, {"device": "tpu"}),
    ],
)
def test_configs_are_closed_and_ranged(cls, arguments):
    with pytest.raises(ValidationError, match=next(iter(arguments))):
        cls(**arguments)


def image(**shape):
    return torch.zeros(shape.get("n", 2), shape.get("c", 3), 16, 16, dtype=shape.get("dtype", torch.uint8))


@pytest.mark.parametrize(
    ("images", "keys", "dense", "says"),
    [
        (image(dtype=torch.float32), "ab", None, "uint8"),
        (image(c=4), "ab", None, "uint8"),
        (image(n=0), "", None, "uint8"),
        (image(), "abc", None, "3 keys"),
        (image(), "aa", None, "1 distinct"),
        (image(), "ab", image()[:, :, :8], "pair"),
        (image(), "ab", image().float(), "dense must be uint8"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(images, keys, dense, says):
    with pytest.raises(ValueError, match=says):
        Samples(images, ["a prompt"] * len(images), list(keys), dense)


def test_dense_images_pair_by_key_not_by_place():
    x = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 16, 16).contiguous()
    mine = Samples(x[:2], ["p", "q"], ["p/0", "q/0"])
    dense = Samples(x.flip(0), ["r", "q", "p"], ["r/0", "q/0", "p/0"], random_weights=True)
    paired = mine.against(dense)
    assert torch.equal(paired.dense, mine.images)
    assert paired.random_weights
    with pytest.raises(ValueError, match="'p/1'"):
        Samples(x[:1], ["p"], ["p/1"]).against(dense)


def test_a_score_has_a_value_with_its_error_or_a_reason():
    for value, se, reason in (
        (math.nan, 0.1, None),
        (None, None, None),
        (1.0, 0.1, "why"),
    ):
        with pytest.raises(ValueError, match="fd"):
            Score("fd", FD, value, se, 2, unavailable=reason)
    assert Score("fd", FD, 1.0, None, 1).se is None


def test_eight_seeds_of_a_prompt_are_one_draw_of_it(metric, samples):
    """The same images at eight seeds say no more of how sure a score is: the unit is the prompt."""
    once = {s.name: s for s in metric(samples)}
    keys = [f"{key}/{seed}" for seed in range(8) for key in samples.keys]
    images, dense = (x.repeat(8, 1, 1, 1) for x in (samples.images, samples.dense))
    for score in metric(Samples(images, list(samples.prompts) * 8, keys, dense)):
        if score.facts.biased:  # its covariance is of n images, not of n - 1: Bessel's correction apart
            continue
        assert score.se == pytest.approx(once[score.name].se, rel=1e-5)
        if score.difference is not None:
            assert score.difference.p == pytest.approx(once[score.name].difference.p, rel=1e-4)


def test_one_prompt_has_no_error_and_no_interval(metric, samples):
    one = Samples(samples.images, ["a prompt"] * samples.n, samples.keys, samples.dense)
    for score in metric(one):
        assert score.value is not None
        assert score.se is None
        assert score.difference is None or score.difference.level == 0
    for score in metric(Samples(samples.images[:1], ["a"], ["a"], samples.dense[:1])):
        assert score.se is None


def test_only_what_is_unavailable_is_caught():
    class Broken:
        scores = {"x": FD}  # noqa: RUF012

        def __init__(self, error):
            self.error = error

        def check(self):
            pass

        def needs(self):
            return []

        @quality
        def __call__(self, samples):
            raise self.error

    one = Samples(image(n=1), ["p"], ["p/0"])
    assert Broken(Unavailable("no file", "get it"))(one) == [
        Score("x", FD, None, None, 1, unavailable="no file", remedy="get it")
    ]
    with pytest.raises(ZeroDivisionError):
        Broken(ZeroDivisionError())(one)

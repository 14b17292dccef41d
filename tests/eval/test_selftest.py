"""The self-test passes what is right, and catches each of the mistakes that metrics elsewhere have made."""

import json
from dataclasses import dataclass, replace
from io import StringIO

import pytest

from fovea.eval import Samples, Score, Unavailable, selftest
from fovea.eval.clipscore import CLIPScore
from fovea.eval.facts import Facts
from fovea.eval.fidelity import PSNR, SSIM
from fovea.eval.frechet import FrechetDistance
from fovea.eval.statistics import paired_difference, pooled, standard_error

BRIGHTNESS = Facts("brightness", "higher", "preference")


@dataclass(frozen=True)
class Fake:
    """The mean brightness, said to be `name`, with one mistake."""

    mistake: str = ""
    name: str = "brightness"
    scores = {"brightness": BRIGHTNESS}  # noqa: RUF012

    def check(self):
        if self.mistake == "no weights":
            raise Unavailable("no weights", "fetch them")

    def needs(self):
        return []

    def each(self, images):
        return images.float().mean((1, 2, 3)).tolist()

    def __call__(self, samples: Samples):
        mine, dense = self.each(samples.images), self.each(samples.dense)
        if self.mistake == "order":
            mine, dense = ([x * (i + 1) for i, x in enumerate(each)] for each in (mine, dense))
        if self.mistake == "batch":
            mine, dense = ([x * len(each) for x in each] for each in (mine, dense))
        if self.mistake == "memory" and samples.n > 4:
            raise MemoryError("of the large study only")
        if samples.n > 4 and self.mistake in ("nan", "inf", "-inf"):
            mine[-1] = float(self.mistake)
        if self.mistake == "crash":
            raise IndexError("out of range")
        difference = paired_difference(mine, dense) if samples.n > 1 else None
        if self.mistake == "sign" and difference is not None:
            difference = replace(difference, value=abs(difference.value))
        name = "darkness" if self.mistake == "name" else "brightness"
        value = float(pooled(mine))
        each = tuple(mine)
        return [Score(name, BRIGHTNESS, value, standard_error(mine), samples.n, each, difference=difference)]


def test_what_is_right_passes(backbone, reference):
    fd = FrechetDistance(backbone=backbone, reference=reference, cache=None)
    for metric in (PSNR(), SSIM(), CLIPScore(backbone=backbone), fd, Fake()):
        assert selftest.verdict(metric) == ("passed", "")
        assert selftest.trusted(metric) is metric


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("order", "order"),
        ("batch", "alone"),
        ("sign", "better than dense"),
        ("name", "promised"),
        ("crash", "IndexError: out of range"),
    ],
)
def test_each_mistake_is_caught_and_disables(mistake, says, samples):
    metric = Fake(mistake)
    outcome, why = selftest.verdict(metric)
    assert outcome == "failed"
    assert says in why
    score = selftest.trusted(metric)(samples)[0]
    assert score.value is None
    assert "self-test" in score.unavailable
    assert says in score.unavailable


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("memory", "MemoryError: of the large study only"),
        ("nan", "no difference to what is not finite"),
        ("inf", "no difference to what is not finite"),
        ("-inf", "no difference to what is not finite"),
    ],
)
def test_what_fails_over_the_study_alone_costs_its_own_score_only(mistake, says, samples):
    metric = selftest.trusted(Fake(mistake))
    (score,) = selftest.scored(metric, samples)
    assert (score.name, score.value, score.n) == ("brightness", None, 10)
    assert says in score.unavailable


def test_only_what_is_identical_to_the_dense_images_has_an_infinite_score():
    psnr, infinite = PSNR.scores["psnr"], float("inf")
    for facts, value in ((BRIGHTNESS, float("nan")), (BRIGHTNESS, infinite), (psnr, -infinite)):
        with pytest.raises(ValueError, match="is no score"):
            Score("x", facts, value, None, 3)
    assert Score("psnr", psnr, infinite, 0.0, 3).value == infinite


def test_what_its_check_says_is_missing_has_no_number(samples):
    (score,) = selftest.scored(Fake("no weights"), samples)
    assert (score.value, score.unavailable, score.remedy) == (None, "no weights", "fetch them")


def test_a_metric_that_cannot_even_say_its_scores_is_unavailable(samples):
    class Mute:
        @property
        def scores(self):
            raise KeyError("no name")

        def check(self):
            pass

        def needs(self):
            return []

        def __call__(self, samples):
            return []

    (score,) = selftest.scored(selftest.trusted(Mute()), samples)
    assert (score.name, score.value) == ("mute", None)
    assert "KeyError" in score.unavailable


def test_a_psnr_that_wraps_is_caught(monkeypatch):
    """As cache-dit's does: the difference of uint8 images, squared in uint8."""

    def wrapped(self, samples):
        mse = ((samples.images - samples.dense) ** 2).double().mean((1, 2, 3)).clamp(min=1e-9)
        each = tuple((10 * (255**2 / mse).log10()).tolist())
        same, facts = tuple([0.0] * samples.n), PSNR.scores
        value = float(pooled(each, pool="decibel"))
        return [
            Score("psnr", facts["psnr"], value, 0.0, samples.n, each, "decibel"),
            Score("identical", facts["identical"], 0.0, 0.0, samples.n, same),
        ]

    monkeypatch.setattr(PSNR, "__call__", wrapped)
    assert selftest.verdict(PSNR())[0] == "failed"


def test_without_weights_it_is_unavailable_and_no_failure():
    assert selftest.verdict(Fake("no weights")) == ("unavailable", "no weights: fetch them")
    assert selftest.fault(Fake("no weights")) is None


def test_command_line(monkeypatch, capsys):
    assert selftest.main(["psnr", "ssim"]) == 0
    assert capsys.readouterr().out.split() == ["psnr", "passed", "ssim", "passed"]
    broken = {"x": {"_target_": "tests.eval.test_selftest.Fake", "mistake": "order"}}
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(broken)))
    assert selftest.main(["-"]) == 1
    assert json.loads(capsys.readouterr().out)["x"][0] == "failed"

"""What holds for every file of conf/metric."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pydantic import ValidationError

from fovea.eval import Samples, Unavailable
from fovea.eval.clipiqa import CLIPIQA
from fovea.eval.dino import DINO
from fovea.eval.facts import Facts
from fovea.eval.hpsv2 import HPSv2
from fovea.eval.imagereward import ImageReward
from fovea.eval.lpips import LPIPS
from fovea.eval.network import place
from fovea.eval.niqe import NIQE
from fovea.eval.pickscore import PickScore
from fovea.eval.similarity import Similarity
from fovea.eval.transformers_clip import TransformersCLIP

CONF = Path(__file__).parents[2] / "conf" / "metric"


@pytest.fixture(params=sorted(file.stem for file in CONF.glob("*.yaml")))
def name(request):
    return request.param


@pytest.fixture
def node(name):
    return OmegaConf.load(CONF / f"{name}.yaml")


def test_each_says_what_is_known_of_its_scores(name, node):
    for score, facts in instantiate(node).scores.items():
        assert re.fullmatch(r"[a-z0-9_]+(\[[^\[\]]+\])?", score)
        assert facts.title
        assert facts.low < facts.high
        assert (facts.reference is not None) == (facts.kind == "likeness")
        assert Facts(**facts.plain()) == facts


def test_no_two_give_the_same_score():
    names = [s for file in CONF.glob("*.yaml") for s in instantiate(OmegaConf.load(file)).scores]
    assert len(set(names)) == len(names)


def test_without_weights_each_is_unavailable_with_a_remedy(node, samples, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("fovea.eval.lpips.CACHE", tmp_path)
    monkeypatch.setattr("fovea.eval.lpips.HUB", tmp_path)
    metric = instantiate(node)
    scores = metric(samples)
    try:
        metric.check()
    except Unavailable:
        for score in scores:
            assert score.value is None
            assert len(score.unavailable) > 10
            assert len(score.remedy) > 10
            if "eval.backbone" in str(node) and "metadata" not in node:  # a tag that open_clip knows
                assert "create_model" in score.remedy
    else:  # it needs none, or they come with the package; NIQE needs more pixels than these have
        assert all(score.value is not None or "larger images" in score.remedy for score in scores)


def test_random_weights_get_no_number(node, samples):
    for score in instantiate(node)(replace(samples, random_weights=True)):
        assert score.value is None
        assert "random" in score.unavailable


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (ImageReward, {"wieghts": "x"}),
        (ImageReward, {"batch": 0}),
        (PickScore, {"batch": 0}),
        (HPSv2, {"version": "v3"}),
        (CLIPIQA, {"prompts": "mine"}),
        (NIQE, {"luma": "red"}),
        (LPIPS, {"net": "squeeze"}),
        (Similarity, {"backbone": {"modell": "x"}}),
        (DINO, {"batch": 0}),
        (TransformersCLIP, {"model": "x", "device": "tpu"}),
    ],
)
def test_configs_are_closed_and_ranged(cls, arguments):
    with pytest.raises(ValidationError, match=list(arguments)[-1]):
        cls(**arguments)


def test_a_gpu_that_is_not_there_is_unavailable(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert place("auto") == "cpu"
    with pytest.raises(Unavailable, match="no GPU"):
        place("cuda")


def test_one_image_has_a_score_without_an_error():
    image = torch.arange(3 * 192 * 96, dtype=torch.int32).remainder(251).to(torch.uint8).view(1, 3, 192, 96)
    score = NIQE()(Samples(image, ["x"], ["x/0"]))[0]
    assert (score.n, score.se) == (1, None)

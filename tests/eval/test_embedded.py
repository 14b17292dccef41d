"""The default suite with its own weights and references: right prompts or wrong, drawings or noise."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.eval import Samples
from fovea.eval.clipscore import CLIPScore
from fovea.eval.frechet import FrechetDistance

EMOJI = Path(__file__).parents[2] / "assets" / "emoji"


@pytest.fixture(scope="module")
def drawings():
    rows = list(csv.DictReader((EMOJI / "reference.csv").read_text().splitlines()))[:24]
    pixels = np.stack([np.array(Image.open(EMOJI / row["file"]).convert("RGB")) for row in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Samples(images, [row["prompt"] for row in rows], [row["file"] for row in rows], images)


def test_what_is_embedded_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    FrechetDistance().check()
    CLIPScore().check()


def test_right_prompts_score_higher_than_wrong_ones(drawings):
    moved = Samples(drawings.images, [*drawings.prompts[7:], *drawings.prompts[:7]], drawings.keys)
    (right,), (wrong,) = CLIPScore()(drawings), CLIPScore()(moved)
    assert right.name == "clip_score[emoji]"
    assert right.value > wrong.value + 30


def test_noise_is_further_from_the_drawings_than_drawings_are(drawings, tmp_path):
    noise = torch.randint(0, 256, drawings.images.shape, generator=torch.Generator().manual_seed(0)).byte()
    metric = FrechetDistance(cache=tmp_path)
    (near,) = metric(drawings)
    (far,) = metric(Samples(noise, drawings.prompts, drawings.keys, drawings.images))
    assert near.difference.value == 0
    assert far.difference.low > 0
    assert far.difference.value == pytest.approx(far.value - near.value)

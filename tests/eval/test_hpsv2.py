"""HPS v2: its checkpoint's layout in open_clip, its preprocessing, against the package's lines."""

import json
from dataclasses import replace

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize, pad
from torchvision.transforms import InterpolationMode, Normalize, ToTensor
from torchvision.transforms.functional import resize

from fovea.eval import hpsv2
from fovea.eval.backbone import load
from fovea.eval.hpsv2 import HPSv2
from tests.eval.models import CONFIG

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """A checkpoint in the published layout, {"state_dict": ...}, of a small architecture."""
    (tmp_path / "Test-HPS.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path / "Test-HPS.json")
    monkeypatch.setattr(hpsv2, "ARCHITECTURE", "Test-HPS")
    torch.manual_seed(0)
    weights = open_clip.CLIP(**CONFIG).state_dict()
    for name in ("text_projection", "visual.proj"):
        torch.nn.init.normal_(weights[name])
    file = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": weights}, file)
    yield HPSv2(weights=file, device="cpu", batch=4)
    load.cache_clear()
    hpsv2.load.cache_clear()


def by_hand(metric, samples, antialias=True):
    """create_model, load_state_dict, preprocess, cosine, as hpsv2.img_score does it on a CPU."""
    model = open_clip.create_model("Test-HPS")
    model.load_state_dict(torch.load(metric.weights, weights_only=True)["state_dict"])
    pixels = []
    for x in samples.images:
        image = ToTensor()(Image.fromarray(x.permute(1, 2, 0).numpy()))
        scale = 32 / max(image.shape[1:])
        height, width = (round(n * scale) for n in image.shape[1:])
        image = resize(image, [height, width], InterpolationMode.BICUBIC, antialias=antialias)
        h, w = 32 - height, 32 - width
        pixels.append(Normalize(MEAN, STD)(pad(image, (w // 2, w - w // 2, h // 2, h - h // 2))))
    with torch.no_grad():
        image = normalize(model.eval().encode_image(torch.stack(pixels)), dim=-1)
        text = normalize(model.encode_text(open_clip.get_tokenizer("Test-HPS")(samples.prompts)), dim=-1)
    return (100 * (image * text).sum(-1)).tolist()


@pytest.mark.parametrize("antialias", [True, False])
def test_is_the_packages_cosine(metric, samples, antialias):
    score = replace(metric, antialias=antialias)(samples)[0]
    assert score.per_image == pytest.approx(by_hand(metric, samples, antialias), abs=1e-4)
    assert score.name == ("hpsv2[v2.1]" if antialias else "hpsv2[v2.1,aliased]")
    assert score.difference is not None


def test_smoothing_matters_and_so_is_in_the_name(metric, samples):
    a, b = (by_hand(metric, samples, antialias) for antialias in (True, False))
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) > 0.1


def test_the_batch_does_not_matter(metric, samples):
    one_by_one = replace(metric, batch=1)(samples)[0]
    assert one_by_one.per_image == pytest.approx(metric(samples)[0].per_image, abs=1e-4)


def test_missing_weights_name_the_file_of_the_version(samples, monkeypatch, tmp_path):
    monkeypatch.setattr(hpsv2, "CACHES", (tmp_path,))
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in HPSv2()(samples)[0].remedy
    assert "HPS_v2_compressed.pt" in HPSv2(version="v2.0")(samples)[0].remedy
    (tmp_path / "HPS_v2_compressed.pt").write_bytes(b"")
    HPSv2(version="v2.0").check()

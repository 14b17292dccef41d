"""CLIP score and its backbone, against open_clip by hand; weights that are missing, broken or OpenAI's."""

import hashlib
from dataclasses import replace

import open_clip
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from fovea.eval import Unavailable, weights
from fovea.eval.backbone import Backbone, load
from fovea.eval.clipscore import CLIPScore
from tests.eval.models import save_tiny


def by_hand(backbone, images, prompts):
    model, _, preprocess = open_clip.create_model_and_transforms(backbone.model)
    tokens = open_clip.get_tokenizer(backbone.model)(prompts)
    pictures = [preprocess(Image.fromarray(x.permute(1, 2, 0).numpy())) for x in images]
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack(pictures), normalize=True)
        text = model.encode_text(tokens, normalize=True)
    return 100 * (image * text).sum(1).clamp(min=0)


def test_is_a_hundred_times_the_cosine(backbone, samples):
    score = CLIPScore(backbone=backbone)(samples)[0]
    expected = by_hand(backbone, samples.images, samples.prompts)
    assert score.name == "clip_score[tiny]"
    assert score.per_image == pytest.approx(expected.tolist(), abs=1e-4)
    assert any(x > 0 for x in score.per_image)
    assert score.value == pytest.approx(float(expected.mean()), abs=1e-4)
    assert score.se == pytest.approx(float(expected.std() / 10**0.5), abs=1e-4)


def test_a_negative_cosine_counts_as_none(backbone, samples):
    prompts = [f"{word} {i}" for i, word in enumerate("abcdefghij")]
    score = CLIPScore(backbone=backbone)(replace(samples, prompts=prompts))[0]
    assert min(score.per_image) == 0


def test_difference_to_the_dense_images(backbone, samples):
    metric = CLIPScore(backbone=backbone)
    ours, theirs = metric(samples)[0], metric(replace(samples, images=samples.dense))[0]
    assert ours.difference.value == pytest.approx(ours.value - theirs.value)
    assert theirs.difference.low == theirs.difference.high == 0


def test_the_batch_does_not_matter(backbone, samples):
    one_by_one = replace(backbone, batch=1).load()
    for a, b in (
        (backbone.load().images(samples.images)["features"], one_by_one.images(samples.images)["features"]),
        (backbone.load().texts(samples.prompts), one_by_one.texts(samples.prompts)),
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_loaded_once(backbone):
    assert replace(backbone).load() is backbone.load()


def test_extraction_leaves_precision_as_it_was(backbone, samples):
    before = torch.backends.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    backbone.load().images(samples.images[:1])
    assert (torch.backends.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == before


@pytest.mark.parametrize("broken", ["weights", "config", "other weights"])
def test_what_cannot_be_loaded_is_unavailable(tmp_path, samples, broken):
    save_tiny(tmp_path)
    if broken == "weights":
        (tmp_path / "open_clip_model.safetensors").write_bytes(b"not weights at all")
    elif broken == "config":
        (tmp_path / "open_clip_config.json").write_text("{}")
    else:
        config = (tmp_path / "open_clip_config.json").read_text()
        (tmp_path / "open_clip_config.json").write_text(config.replace('"width": 16', '"width": 32'))
    score = CLIPScore(backbone=Backbone(model=f"local-dir:{tmp_path}", name="tiny"))(samples)[0]
    assert score.value is None
    assert str(tmp_path) in score.unavailable
    assert score.remedy


def test_labels_name_model_and_weights():
    assert Backbone().label == "clip_emoji"
    assert Backbone(model="ViT-B-32", pretrained="openai").label == "ViT-B-32/openai"
    assert Backbone(model="ViT-L-14", pretrained="some/where/mine.pt").label == "ViT-L-14/mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "ViT-B-32"}, "needs `pretrained`"),
        ({"pretrained": "openai"}, "leave out pretrained=openai"),
        ({"model": "hf-hub:someone/model"}, "local-dir:PATH"),
    ],
)
def test_a_backbone_with_unclear_weights_is_refused(arguments, says):
    with pytest.raises(ValidationError, match=says):
        Backbone(**arguments)


def test_missing_weights_of_a_tag_name_the_way_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="create_model"):
        Backbone(model="ViT-B-32", pretrained="openai").weights()
    with pytest.raises(Unavailable, match=r"tags for it: .*laion2b"):
        Backbone(model="ViT-B-32", pretrained="opnai").weights()


def test_a_tag_is_found_where_open_clip_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = tmp_path / ".cache" / "clip" / "ViT-B-32.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert Backbone(model="ViT-B-32", pretrained="openai").weights() == kept


def test_openai_weights_get_quickgelu_by_tag_and_by_file(tmp_path, monkeypatch):
    file = tmp_path / "renamed.pt"
    file.write_bytes(b"x")
    assert weights.quick_gelu("ViT-B-32", "openai", file)
    assert not weights.quick_gelu("ViT-B-32", "laion2b_s34b_b79k", file)
    with pytest.raises(Unavailable, match="does not say which activation") as asked:
        weights.quick_gelu("ViT-B-32", str(file), file)
    assert "backbone.quick_gelu=true" in asked.value.remedy
    with pytest.raises(Unavailable, match="activation"):
        CLIPScore(backbone=Backbone("ViT-B-32", str(file))).check()
    assert not weights.quick_gelu("ViT-B-32", str(file), file, given=False)
    assert weights.quick_gelu("ViT-B-32", str(file), file, given=True)
    assert weights.quick_gelu("ViT-B-32-quickgelu", str(file), file)
    assert not weights.quick_gelu("ViT-H-14", str(file), file)  # never published with it
    published = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    monkeypatch.setattr(weights, "digest", lambda path: published)
    assert weights.quick_gelu("ViT-B-32", str(file), file)


def test_an_architecture_with_a_file_of_weights_loads(tmp_path, samples, monkeypatch):
    """The way of ViT-B-32 with a checkpoint, at the size of a test."""
    folder = save_tiny(tmp_path / "tiny")
    config = (folder / "open_clip_config.json").read_text()
    architecture = tmp_path / "Test-Tiny.json"
    architecture.write_text(config[config.index(":") + 1 : config.index(', "preprocess_cfg"')])
    open_clip.add_model_config(architecture)
    file = folder / "open_clip_model.safetensors"
    encoder = Backbone(model="Test-Tiny", pretrained=str(file), device="cpu").load()
    assert encoder.identity["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
    features = encoder.images(samples.images)["features"]

    monkeypatch.setattr("fovea.eval.weights.quick_gelu", lambda *_: True)
    load.cache_clear()
    quick = Backbone(model="Test-Tiny", pretrained=str(file), device="cpu").load()
    assert not torch.allclose(quick.images(samples.images)["features"], features, atol=1e-4)
    assert quick.identity["architecture"] != encoder.identity["architecture"]
    load.cache_clear()

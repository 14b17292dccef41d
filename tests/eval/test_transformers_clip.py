"""CLIP score over a transformers folder: against torchmetrics, against open_clip with the same weights."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.multimodal import CLIPScore as TorchmetricsCLIPScore
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from fovea.eval import Unavailable
from fovea.eval.backbone import Backbone
from fovea.eval.clipscore import CLIPScore
from fovea.eval.hub import cached
from fovea.eval.transformers_clip import TransformersCLIP
from tests.eval.clip_models import as_open_clip, save_transformers_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_transformers_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture
def metric(folder):
    return CLIPScore(backbone=TransformersCLIP(str(folder), device="cpu", batch=4))


def torchmetrics_model(folder):
    """What torchmetrics takes, which wants tensors where transformers 5 has objects."""
    model = CLIPModel.from_pretrained(folder).eval()
    like = SimpleNamespace(
        config=model.config,
        get_image_features=lambda x: model.get_image_features(x).pooler_output,
        get_text_features=lambda x, mask: model.get_text_features(x, mask).pooler_output,
        eval=lambda: like,
    )
    like.to = lambda device: like
    pictures = CLIPImageProcessorPil.from_pretrained(folder)
    return like, CLIPProcessor(image_processor=pictures, tokenizer=CLIPTokenizer.from_pretrained(folder))


def test_each_score_is_torchmetrics(folder, metric, samples):
    score = metric(samples)[0]
    for x, prompt, ours in zip(samples.images, samples.prompts, score.per_image, strict=True):
        theirs = clip_score(x, prompt, lambda: torchmetrics_model(folder))
        assert ours == pytest.approx(float(theirs.detach()), abs=2e-4)
    assert score.name == "clip_score[transformers/tiny-clip]"
    assert len(set(score.per_image)) == 10


def test_the_mean_is_torchmetrics_where_no_cosine_is_negative(folder, metric, samples):
    each = metric(samples)[0].per_image
    good = [i for i, x in enumerate(each) if x > 0]
    assert len(good) > 1
    some = replace(samples, images=samples.images[good], dense=samples.dense[good])
    some = replace(some, prompts=[samples.prompts[i] for i in good], keys=[samples.keys[i] for i in good])
    theirs = TorchmetricsCLIPScore(lambda: torchmetrics_model(folder))
    theirs.update(list(some.images), list(some.prompts))
    assert metric(some)[0].value == pytest.approx(float(theirs.compute().detach()), abs=2e-4)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_open_clip_and_transformers_agree_on_the_same_weights(tmp_path, samples, act):
    theirs = save_transformers_clip(tmp_path / "transformers", seed=1, act=act)
    ours = tmp_path / "open_clip"
    ours.mkdir()
    save_file(as_open_clip(theirs), ours / "open_clip_model.safetensors")
    tower = {"layers": 2, "width": 32}
    config = {
        "embed_dim": 16,
        "quick_gelu": act == "quick_gelu",
        "vision_cfg": tower | {"image_size": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": tower | {"context_length": 77, "vocab_size": 49408, "heads": 2},
    }
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (ours / "open_clip_config.json").write_text(json.dumps(document))
    long = [f"{prompt} and a very long list of other things" * 20 for prompt in samples.prompts[:3]]
    a = TransformersCLIP(str(theirs), device="cpu").load()
    b = Backbone(f"local-dir:{ours}", device="cpu").load()
    texts = [*long, *samples.prompts]
    for x, y in (
        (a.images(samples.images)["features"], b.images(samples.images)["features"]),
        (a.texts(texts), b.texts(texts)),
    ):
        assert torch.allclose(x, y, atol=1e-5 * float(y.abs().max()))


def test_batches_and_padding_do_not_matter(folder, samples):
    a, b = (TransformersCLIP(str(folder), device="cpu", batch=n).load() for n in (1, 8))
    assert torch.allclose(
        a.images(samples.images)["features"], b.images(samples.images)["features"], atol=1e-5
    )
    prompts = [*samples.prompts, "a " * 200]
    assert torch.allclose(a.texts(prompts), b.texts(prompts), atol=1e-5)


def test_names_say_whose_model_it_is():
    assert TransformersCLIP("openai/clip-vit-base-patch32").label == "transformers/clip-vit-base-patch32"
    assert CLIPScore(backbone={"model": "x", "processor": "y"}).name == "clip_score[transformers/x]"


def test_a_missing_model_says_how_to_get_it(tmp_path, monkeypatch, samples):
    score = CLIPScore(backbone=TransformersCLIP("openai/clip-vit-base-patch32"))(samples)[0]
    assert score.value is None
    assert "hf download openai/clip-vit-base-patch32" in score.remedy
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Unavailable, match=r"model\*\.safetensors|tokenizer"):
        TransformersCLIP(str(empty)).weights()
    assert cached("not/a/repository", "config.json") is None


def test_a_model_is_found_in_the_cache_of_the_hub(folder, tmp_path, monkeypatch):
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = TransformersCLIP("someone/tiny").weights()
    assert found == repository / "snapshots" / "abc"
    assert TransformersCLIP("someone/tiny", device="cpu").load().identity["weights"]


def test_files_that_are_no_model_are_unavailable(folder, tmp_path, samples):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not weights")
    score = CLIPScore(backbone=TransformersCLIP(str(broken)))(samples)[0]
    assert "cannot load" in score.unavailable

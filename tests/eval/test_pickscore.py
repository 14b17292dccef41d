"""PickScore against its authors' lines on a small random model."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from fovea.eval.pickscore import PickScore
from tests.eval.clip_models import save_processor, save_transformers_clip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The weights and the processor apart, as they are published."""
    folder = tmp_path_factory.mktemp("pick")
    save_processor(folder / "processor")
    save_transformers_clip(folder / "model", seed=1)
    return {"model": str(folder / "model"), "processor": str(folder / "processor")}


def test_is_the_logit_of_image_and_prompt(folders, samples):
    model = CLIPModel.from_pretrained(folders["model"]).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folders["processor"])
    pictures = CLIPImageProcessorPil.from_pretrained(folders["processor"])
    images = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in samples.images]
    words = tokenizer(samples.prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        out = model(pixel_values=pictures(images=images, return_tensors="pt").pixel_values, **words)
        image, text = (x / x.norm(dim=-1, keepdim=True) for x in (out.image_embeds, out.text_embeds))
        expected = model.logit_scale.exp() * (image * text).sum(-1)
    score = PickScore(**folders, device="cpu", batch=4)(samples)[0]
    assert score.name == "pick_score"
    assert score.per_image == pytest.approx(expected.tolist(), abs=1e-4)
    assert min(score.per_image) < 0  # not cut off at zero
    assert score.difference is not None
    one_by_one = PickScore(**folders, device="cpu", batch=1)(samples)[0]
    assert one_by_one.per_image == pytest.approx(score.per_image, abs=1e-4)


def test_the_same_images_as_the_dense_ones_differ_by_nothing(folders, samples):
    same = replace(samples, images=samples.dense)
    difference = PickScore(**folders, device="cpu")(same)[0].difference
    assert difference.value == difference.low == difference.high == 0


def test_missing_weights_say_how_to_get_them(folders, samples):
    score = PickScore()(samples)[0]
    assert "laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in score.unavailable
    score = PickScore(processor=folders["processor"])(samples)[0]
    assert "hf download yuvalkirstain/PickScore_v1" in score.remedy

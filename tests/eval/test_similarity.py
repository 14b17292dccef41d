"""Similarity to the dense image, over CLIP and over small random DINO models of both generations."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, normalize, resize, to_tensor
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from fovea.eval.dino import DINO
from fovea.eval.similarity import Similarity

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
PROCESSORS = {  # as facebook/dinov2-base and facebook/dino-vits16 have them, in small
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 28, "width": 28},
        "do_center_crop": True,
    },
    "dino": {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}},
}


@pytest.fixture(scope="module", params=["dinov2", "dino"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    torch.manual_seed(0)
    v2 = Dinov2Model(Dinov2Config(mlp_ratio=2, **SIZES)) if request.param == "dinov2" else None
    model = v2 or ViTModel(ViTConfig(intermediate_size=64, **SIZES), add_pooling_layer=False)
    for x in model.parameters():
        torch.nn.init.normal_(x, std=0.3)
    model.embeddings.cls_token.data.zero_()  # so that images matter more than what they share
    model.embeddings.position_embeddings.data.zero_()
    model.save_pretrained(folder)
    common = {"resample": 3, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[request.param] | common))
    return folder


@pytest.fixture
def metric(folder):
    return Similarity(backbone=DINO(str(folder), device="cpu", batch=4))


def features(folder, images):
    """The first token of the last layer, by hand."""
    pixels = []
    for x in images:
        image = Image.fromarray(x.permute(1, 2, 0).numpy())
        if folder.name == "dinov2":
            image = center_crop(resize(image, 32, 3), [28, 28])
        else:
            image = resize(image, [28, 28], 3)
        pixels.append(normalize(to_tensor(image), MEAN, STD))
    kind = Dinov2Model if folder.name == "dinov2" else ViTModel
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.stack(pixels)).last_hidden_state[:, 0].double()


def test_is_the_cosine_of_the_first_tokens(folder, metric, samples):
    samples = replace(samples, dense=255 - samples.images)
    a, b = (features(folder, x) for x in (samples.images, samples.dense))
    assert torch.allclose(metric.backbone.load().images(samples.images)["features"].double(), a, atol=1e-4)
    expected = torch.nn.functional.cosine_similarity(a, b)
    score = metric(samples)[0]
    assert score.name == f"similarity[{folder.name}]"
    assert score.per_image == pytest.approx(expected.tolist(), abs=2e-5)
    assert score.value == pytest.approx(float(expected.mean()), abs=2e-5)
    assert max(score.per_image) - min(score.per_image) > 0.005


@pytest.fixture(params=["dino", "clip"])
def either(request, metric, backbone):
    return {"dino": metric, "clip": Similarity(backbone=backbone)}[request.param]


def test_identical_images_are_alike_and_order_does_not_matter(either, samples):
    same = either(replace(samples, dense=samples.images))[0]
    assert same.per_image == pytest.approx([1.0] * 10, abs=1e-12)
    assert same.se == pytest.approx(0, abs=1e-12)
    swapped = either(replace(samples, images=samples.dense, dense=samples.images))[0]
    assert swapped.per_image == pytest.approx(either(samples)[0].per_image, abs=1e-6)


def test_the_batch_does_not_matter(folder, metric, samples):
    one_by_one = Similarity(backbone=DINO(str(folder), device="cpu", batch=1))(samples)[0]
    assert one_by_one.per_image == pytest.approx(metric(samples)[0].per_image, abs=1e-5)


def test_without_dense_images_there_is_no_similarity(samples):
    assert "baseline" in Similarity()(replace(samples, dense=None))[0].remedy


def test_missing_weights_say_how_to_get_them(samples):
    score = Similarity(backbone=DINO())(samples)[0]
    assert score.name == "similarity[dinov2-base]"
    assert "hf download facebook/dinov2-base" in score.remedy

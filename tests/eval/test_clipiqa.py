"""CLIP-IQA on a small random ResNet, against its lines written out."""

import json
from dataclasses import replace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize, softmax

from fovea.eval.backbone import Backbone
from fovea.eval.clipiqa import CLIPIQA, PROMPTS
from tests.eval.models import CONFIG, PREPROCESS, save_tiny

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    config = CONFIG | {"vision_cfg": RESNET, "quick_gelu": True}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    for name, x in model.named_parameters():
        if name != "logit_scale":
            torch.nn.init.normal_(x, 1 if "bn" in name and "weight" in name else 0, 0.3)
    for module in model.modules():  # statistics of these weights, so that features differ between images
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.visual.train()(torch.randn(16, 3, 64, 64).cumsum(2).cumsum(3) / 16)
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    document = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return Backbone(f"local-dir:{folder}", name="tiny", device="cpu", batch=3)


@pytest.fixture
def metric(backbone):
    return CLIPIQA(backbone=backbone)


@pytest.fixture
def samples(samples):
    """Shades as well as noise."""
    shade = torch.linspace(0, 1, 48)[:, None] * torch.linspace(0, 1, 10)[:, None, None, None]
    images = (samples.images * shade).to(torch.uint8).repeat(1, 1, 2, 2)
    return replace(samples, images=images, dense=samples.dense.repeat(1, 1, 2, 2))


def pooled(visual, x):
    """The trunk, and attention of the mean over all places, without positions, written out."""
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))  # (b, c, h, w)
    x = x.flatten(2).transpose(1, 2)  # (b, places, c)
    x = torch.cat([x.mean(1, keepdim=True), x], 1)
    pool = visual.attnpool
    q, k, v = (
        part(y).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        for part, y in ((pool.q_proj, x[:, :1]), (pool.k_proj, x), (pool.v_proj, x))
    )
    mixed = softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
    return pool.c_proj(mixed.transpose(1, 2).flatten(2))[:, 0]


@pytest.mark.parametrize("prompts", ["pyiqa", "torchmetrics"])
def test_is_the_probability_of_the_good_prompt(metric, samples, prompts):
    model = open_clip.create_model(metric.backbone.model).eval()
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    with torch.no_grad():
        image = normalize(pooled(model.visual, (samples.images / 255 - mean) / std), dim=-1)
        tokens = open_clip.get_tokenizer(metric.backbone.model)(list(PROMPTS[prompts]))
        text = model.encode_text(tokens, normalize=True)
        scale = model.logit_scale.exp() if prompts == "pyiqa" else 100
        logits = (scale * image @ text.T).reshape(len(image), -1, 2)
        expected = logits.softmax(-1)[..., 0].mean(1)
    score = replace(metric, prompts=prompts)(samples)[0]
    assert score.name == f"clip_iqa[{prompts},tiny]"
    assert score.per_image == pytest.approx(expected.tolist(), abs=1e-5)
    assert 0 < min(score.per_image) < max(score.per_image) - 0.01 < 0.99
    assert score.difference is not None


def test_images_are_taken_at_their_own_size(metric, samples):
    larger = replace(samples, images=samples.images.repeat(1, 1, 2, 2), dense=None)
    assert metric(larger)[0].per_image != pytest.approx(metric(samples)[0].per_image, abs=1e-4)


def test_the_networks_own_positions_stay_as_they_were(metric, samples):
    encoder = metric.backbone.load()
    before = encoder.towers.visual.attnpool.positional_embedding.clone()
    metric(samples)
    assert torch.equal(encoder.towers.visual.attnpool.positional_embedding, before)


def test_neither_batch_nor_prompts_of_the_images_matter(metric, samples):
    other = CLIPIQA(backbone=replace(metric.backbone, batch=1))
    score = other(replace(samples, prompts=["something else"] * 10))[0]
    assert score.per_image == pytest.approx(metric(samples)[0].per_image, abs=1e-5)


def test_the_same_images_as_the_dense_ones_differ_by_nothing(metric, samples):
    difference = metric(replace(samples, images=samples.dense))[0].difference
    assert difference.value == difference.low == difference.high == 0


def test_a_backbone_without_attention_pool_is_unavailable(samples, tmp_path):
    score = CLIPIQA(backbone=Backbone(f"local-dir:{save_tiny(tmp_path)}"))(samples)[0]
    assert "RN" in score.remedy


def test_missing_weights_name_the_way_to_get_them(samples, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CLIPIQA().name == "clip_iqa[pyiqa,RN50/openai]"
    assert "open_clip.create_model('RN50-quickgelu', 'openai')" in CLIPIQA()(samples)[0].remedy

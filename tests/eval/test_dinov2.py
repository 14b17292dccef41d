"""DINOv2's features: the authors' file, their position embeddings, and transformers' network on the same
weights."""

import pytest
import torch
from PIL import Image
from torchvision import transforms
from transformers import Dinov2Config, Dinov2Model

from fovea.eval import Samples, Unavailable
from fovea.eval.dino import DINOv2, at_224, prepare
from fovea.eval.dinov2 import DINOv2Distance
from fovea.eval.reference import Reference
from tests.eval.inceptions import noise

WIDTH = 384


@pytest.fixture(scope="module")
def state():
    """The small model at random, under the authors' keys, at 518 px as they publish it."""
    import timm

    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    assert shapes["pos_embed"].shape == (1, 1 + 37 * 37, WIDTH)
    found = {key: 0.05 * torch.randn(x.shape) for key, x in shapes.items()}
    found |= {key: torch.rand(x.shape) for key, x in shapes.items() if "gamma" in key or "norm" in key}
    return found | {"mask_token": torch.zeros(1, WIDTH)}


@pytest.fixture(scope="module")
def backbone(state, tmp_path_factory):
    file = tmp_path_factory.mktemp("dinov2") / "dinov2_vits14_pretrain.pth"
    torch.save(state, file)
    return DINOv2(size="small", weights=file, device="cpu", batch=2)


def as_transformers(state):
    with torch.device("meta"):
        network = Dinov2Model(
            Dinov2Config(hidden_size=WIDTH, num_attention_heads=6, image_size=224, patch_size=14)
        )
    names = {"attn.proj": "attention.o_proj", "ls1.gamma": "layer_scale1.lambda1", "mlp.": "mlp."}
    names |= {"ls2.gamma": "layer_scale2.lambda1", "norm1": "norm1", "norm2": "norm2"}
    found = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.mask_token": state["mask_token"],
        "embeddings.position_embeddings": at_224(state["pos_embed"]),
    }
    for key, x in state.items():
        if key.startswith("patch_embed.proj"):
            found[key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")] = x
        elif key.startswith("norm."):
            found[f"layer{key}"] = x
        elif key.startswith("blocks."):
            _, i, rest = key.split(".", 2)
            if rest.startswith("attn.qkv"):
                for name, part in zip("qkv", x.chunk(3), strict=True):
                    found[f"encoder.layer.{i}.attention.{name}_proj.{rest.rpartition('.')[2]}"] = part
            for ours, theirs in names.items():
                if rest.startswith(ours):
                    found[f"encoder.layer.{i}.{rest.replace(ours, theirs)}"] = x
    network.load_state_dict(found, assign=True)
    return network.eval()


@torch.inference_mode()
def test_is_transformers_network_on_the_same_weights(backbone, state):
    images = noise(3, 100, 80)
    expected = as_transformers(state)(torch.stack([prepare(x) for x in images])).last_hidden_state[:, 0]
    found = backbone.load().images(images)["class"]
    assert found.shape == (3, WIDTH)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_images_are_prepared_as_by_the_authors_of_the_metric():
    (image,) = noise(1, 100, 80)
    theirs = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    expected = theirs(Image.fromarray(image.permute(1, 2, 0).numpy()))
    assert (prepare(image) - expected).abs().max() < 1e-6


def test_positions_are_read_where_dinov2_reads_them():
    """At (i + 0.5) 37 / 16.1 - 0.5 of the grid of 37, and not at 37 / 16: a ramp tells."""
    ramp = torch.arange(37.0).expand(37, 37)
    embedding = torch.stack([ramp, ramp.T], -1).reshape(1, 37 * 37, 2)
    found = at_224(torch.cat([torch.zeros(1, 1, 2), embedding], 1))[0, 1:].view(16, 16, 2)
    expected, plain = ((torch.arange(16) + 0.5) * 37 / n - 0.5 for n in (16.1, 16))
    for along in (found[8, :, 0], found[:, 8, 1]):  # torch's cubic filter moves a ramp by up to 0.05
        assert (along - expected)[1:-1].abs().max() < 0.06
        assert (along - plain)[-3:-1].abs().min() > 0.1


def test_scores_with_its_own_name(backbone, tmp_path):
    for i, x in enumerate(noise(5, 50, 50, seed=1)):
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    metric = DINOv2Distance(backbone, Reference(tmp_path, cache=None))
    metric.check()
    images = noise(4, 50, 50)
    (score,) = metric(Samples(images, list("abcd"), list("abcd"), images.flip(0)))
    assert score.name == "fd[dinov2-small]"
    assert DINOv2Distance().name == "fd[dinov2]"
    assert score.value > 0 < score.se
    assert score.facts.biased
    assert score.difference.value == pytest.approx(0, abs=1e-6 * score.value)


def test_missing_and_other_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(Unavailable, match=r"dinov2_vitl14_pretrain\.pth are missing"):
        DINOv2Distance().check()
    torch.save({"pos_embed": torch.zeros(1, 1 + 37 * 37, WIDTH)}, tmp_path / "other.pth")
    with pytest.raises(Unavailable, match="does not hold vit_small_patch14_dinov2"):
        DINOv2(size="small", weights=tmp_path / "other.pth").load()

"""ImageReward: the public file's layout onto transformers' parts, against the equations of the original."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, gelu, layer_norm, linear, softmax

from fovea.eval import Unavailable, imagereward
from fovea.eval.blip import MEAN, STD, RewardNetwork
from fovea.eval.imagereward import ImageReward

WORDS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", ",", "number"]
WORDS += [*"0123456789", "##s", "dog"]
EYE, MIND, PATCH, SIDE, LAYERS = 128, 64, 8, 32, 2  # channels of both towers, pixels, layers; 64 to a head


def norm(width):
    return {"weight": (width,), "bias": (width,)}


def dense(out, width):
    return {"weight": (out, width), "bias": (out,)}


def layout():
    """Names and shapes of ImageReward.pt, as the image-reward package saves its model, in small."""
    shapes = {"blip.visual_encoder.cls_token": (1, 1, EYE)}
    shapes["blip.visual_encoder.pos_embed"] = (1, (SIDE // PATCH) ** 2 + 1, EYE)
    parts = {"blip.visual_encoder.patch_embed.proj": {"weight": (EYE, 3, PATCH, PATCH), "bias": (EYE,)}}
    for i in range(LAYERS):
        block = f"blip.visual_encoder.blocks.{i}"
        parts |= {f"{block}.norm1": norm(EYE), f"{block}.norm2": norm(EYE)}
        parts |= {f"{block}.attn.qkv": dense(3 * EYE, EYE), f"{block}.attn.proj": dense(EYE, EYE)}
        parts |= {f"{block}.mlp.fc1": dense(4 * EYE, EYE), f"{block}.mlp.fc2": dense(EYE, 4 * EYE)}
    parts["blip.visual_encoder.norm"] = norm(EYE)
    embeddings = "blip.text_encoder.embeddings"
    shapes[f"{embeddings}.position_ids"] = (1, 40)
    parts[f"{embeddings}.word_embeddings"] = {"weight": (len(WORDS), MIND)}
    parts[f"{embeddings}.position_embeddings"] = {"weight": (40, MIND)}
    parts[f"{embeddings}.LayerNorm"] = norm(MIND)
    for i in range(LAYERS):
        layer = f"blip.text_encoder.encoder.layer.{i}"
        for kind, seen in (("attention", MIND), ("crossattention", EYE)):
            parts[f"{layer}.{kind}.self.query"] = dense(MIND, MIND)
            parts |= {f"{layer}.{kind}.self.{x}": dense(MIND, seen) for x in ("key", "value")}
            parts |= {f"{layer}.{kind}.output.dense": dense(MIND, MIND)}
            parts |= {f"{layer}.{kind}.output.LayerNorm": norm(MIND)}
        parts |= {f"{layer}.intermediate.dense": dense(4 * MIND, MIND)}
        parts |= {f"{layer}.output.dense": dense(MIND, 4 * MIND), f"{layer}.output.LayerNorm": norm(MIND)}
    parts |= {"blip.vision_proj": dense(32, EYE), "blip.text_proj": dense(32, MIND)}
    widths = (MIND, 48, 40, 24, 16, 1)
    for i, (width, out) in zip((0, 2, 4, 6, 7), pairwise(widths), strict=True):
        parts[f"mlp.layers.{i}"] = dense(out, width)
    return shapes | {f"{part}.{kind}": shape for part, of in parts.items() for kind, shape in of.items()}


def random_weights():
    g = torch.Generator().manual_seed(0)
    found = {k: 0.2 * torch.randn(shape, generator=g) for k, shape in layout().items()}
    for name in found:
        if ("norm" in name.lower()) and name.endswith("weight"):
            found[name] += 1
    found["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return found


def attention(q, k, v, mask=0.0):
    """Heads of 64; mask is added to the scores."""
    q, k, v = (x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (q, k, v))
    return (softmax(q @ k.transpose(-1, -2) / math.sqrt(64) + mask, -1) @ v).transpose(1, 2).flatten(2)


def original(weights, pixels, ids, mask):
    """The reward as vit.py, med.py and ImageReward.py compute it, with the names that they save."""
    w = {k: v.double() for k, v in weights.items()}

    def lin(x, name):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def ln(x, name, eps):
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    v = "blip.visual_encoder"
    x = conv2d(pixels.double(), w[f"{v}.patch_embed.proj.weight"], w[f"{v}.patch_embed.proj.bias"], PATCH)
    x = torch.cat([w[f"{v}.cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + w[f"{v}.pos_embed"]
    for i in range(LAYERS):
        b = f"{v}.blocks.{i}"
        q, k, val = lin(ln(x, f"{b}.norm1", 1e-6), f"{b}.attn.qkv").chunk(3, -1)
        x = x + lin(attention(q, k, val), f"{b}.attn.proj")
        x = x + lin(gelu(lin(ln(x, f"{b}.norm2", 1e-6), f"{b}.mlp.fc1")), f"{b}.mlp.fc2")
    seen = ln(x, f"{v}.norm", 1e-6)

    t = "blip.text_encoder"
    places = w[f"{t}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    h = ln(w[f"{t}.embeddings.word_embeddings.weight"][ids] + places, f"{t}.embeddings.LayerNorm", 1e-12)
    hidden = (1 - mask.double())[:, None, None] * -10000  # not causal
    for i in range(LAYERS):
        b = f"{t}.encoder.layer.{i}"
        for kind, other, added in (("attention", None, hidden), ("crossattention", seen, 0.0)):
            source = h if other is None else other
            q, k, val = (
                lin(y, f"{b}.{kind}.self.{n}")
                for n, y in zip(("query", "key", "value"), (h, source, source), strict=True)
            )
            out = lin(attention(q, k, val, added), f"{b}.{kind}.output.dense")
            h = ln(out + h, f"{b}.{kind}.output.LayerNorm", 1e-12)
        out = lin(gelu(lin(h, f"{b}.intermediate.dense")), f"{b}.output.dense")
        h = ln(out + h, f"{b}.output.LayerNorm", 1e-12)
    reward = h[:, 0]
    for i in (0, 2, 4, 6, 7):
        reward = lin(reward, f"mlp.layers.{i}")
    return (reward[:, 0] - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    torch.save(random_weights(), folder / "ImageReward.pt")
    words = folder / "bert-base-uncased"
    words.mkdir()
    (words / "vocab.txt").write_text("\n".join(WORDS))
    return {"weights": folder / "ImageReward.pt", "tokenizer": str(words)}


@pytest.fixture
def metric(files):
    return ImageReward(**files, device="cpu", batch=4)


def test_the_mapping_is_exact_in_double_precision(files):
    weights = torch.load(files["weights"], weights_only=True)
    network = RewardNetwork(weights).double()
    g = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=g)
    ids = torch.randint(6, len(WORDS), (3, 9), generator=g)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.inference_mode():
        ours = network(pixels.double(), ids, mask)
    theirs = original(weights, pixels, ids, mask)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)
    assert theirs.std() > 0.1
    assert (MEAN, STD) == (0.16717362830052426, 1.0333394966054072)


def test_scores_are_the_originals(files, metric, samples):
    """With the original's preprocessing and token ids written out."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resize = Resize(SIDE, interpolation=InterpolationMode.BICUBIC)
    preprocess = Compose([resize, CenterCrop(SIDE), ToTensor(), Normalize(mean, std)])
    pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in samples.images]
    ids, mask = torch.zeros(10, 35, dtype=torch.long), torch.zeros(10, 35, dtype=torch.long)
    for i in range(10):
        words = ["[CLS]", "a", "red", "cat", ",", "number", str(i), "[SEP]"]
        ids[i, : len(words)] = torch.tensor([WORDS.index(word) for word in words])
        mask[i, : len(words)] = 1
    weights = torch.load(files["weights"], weights_only=True)
    expected = original(weights, torch.stack([preprocess(p) for p in pictures]), ids, mask)
    score = metric(samples)[0]
    assert score.per_image == pytest.approx(expected.tolist(), abs=1e-5)
    assert score.value == pytest.approx(float(expected.mean()), abs=1e-5)
    assert score.difference is not None


def test_prompts_are_lower_case_and_cut_at_35_tokens(metric, samples):
    loud = replace(samples, prompts=[prompt.upper() for prompt in samples.prompts])
    assert metric(loud)[0].per_image == metric(samples)[0].per_image
    a, b = (replace(samples, prompts=["red " * n] * 10) for n in (33, 60))
    assert metric(a)[0].per_image == metric(b)[0].per_image


def test_the_batch_does_not_matter(metric, samples):
    one_by_one = replace(metric, batch=1)(samples)[0]
    assert one_by_one.per_image == pytest.approx(metric(samples)[0].per_image, abs=1e-5)


def test_the_same_images_as_the_dense_ones_differ_by_nothing(metric, samples):
    difference = metric(replace(samples, images=samples.dense))[0].difference
    assert difference.value == difference.low == difference.high == 0


def test_missing_files_say_where_they_were_looked_for(files, samples, monkeypatch, tmp_path):
    monkeypatch.setattr(imagereward, "CACHES", (tmp_path,))
    score = ImageReward()(samples)[0]
    assert str(tmp_path / "ImageReward.pt") in score.unavailable
    assert "hf download THUDM/ImageReward ImageReward.pt" in score.remedy
    (tmp_path / "ImageReward.pt").write_bytes(b"")
    with pytest.raises(Unavailable, match="hf download google-bert/bert-base-uncased"):
        ImageReward().check()
    ImageReward(tokenizer=files["tokenizer"]).check()


@pytest.mark.parametrize("broken", ["no weights", "a name", "a shape", "code"])
def test_other_files_are_refused(files, samples, tmp_path, broken):
    file = tmp_path / "ImageReward.pt"
    weights = random_weights()
    if broken == "a name":
        weights["mlp.layers.9.weight"] = weights.pop("mlp.layers.7.weight")
    elif broken == "a shape":
        weights["blip.visual_encoder.norm.weight"] = torch.ones(5)
    torch.save({"f": partial(print, "run")} if broken == "code" else weights, file)
    if broken == "no weights":
        file.write_bytes(b"not weights")
    score = ImageReward(weights=file, tokenizer=files["tokenizer"], device="cpu")(samples)[0]
    assert score.value is None
    assert "ImageReward" in score.unavailable

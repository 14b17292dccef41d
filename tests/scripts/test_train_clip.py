"""The judge: trained by cheaper ways to the same numbers, on scenes that it is not measured on."""

import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss
from PIL import Image

from scripts import clip_card, emoji, judge, train_clip, words

CAPTIONS = ["a fox left of a cat, noto style", "an owl on a blue ground"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return open_clip.CLIP(**train_clip.config(len(words.clip_tokenizer(pad="<pad>")))).eval()


def tokenize(texts: list[str], padding: str | bool = True) -> torch.Tensor:
    return words.clip_tokenizer(pad="<pad>")(texts, padding=padding, return_tensors="pt").input_ids


@torch.no_grad()
def test_towers_are_what_open_clip_makes_of_them(model):
    x = torch.randn(3, 3, train_clip.SIZE, train_clip.SIZE)
    torch.testing.assert_close(train_clip.see(model, x), model.encode_image(x, normalize=True))
    whole = model.encode_text(tokenize(CAPTIONS, "max_length"), normalize=True)
    assert tokenize(CAPTIONS).shape[1] < words.LENGTH
    torch.testing.assert_close(train_clip.read(model, tokenize(CAPTIONS)), whole)


@torch.no_grad()
def test_a_smaller_map_takes_the_mean_of_the_positions_it_covers(model):
    pool = model.visual.attnpool
    x = torch.randn(2, pool.positional_embedding.shape[1], 1, 1)
    grid = pool.positional_embedding[1:].mean(0, keepdim=True)
    alone = open_clip.modified_resnet.AttentionPool2d(1, x.shape[1], pool.num_heads, 64)
    alone.load_state_dict(
        pool.state_dict() | {"positional_embedding": torch.cat([pool.positional_embedding[:1], grid])}
    )
    torch.testing.assert_close(train_clip.pooled(pool, x), alone(x))


def test_the_contrast_is_clips_and_more_texts_are_wrong_for_every_image():
    torch.manual_seed(0)
    image, text, more = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (5, 5, 2))
    scale = torch.tensor(10.0)
    clip = ClipLoss()(image, text, scale)
    torch.testing.assert_close(train_clip.contrast(image, text, scale), clip)
    assert train_clip.contrast(image, torch.cat([text, more]), scale) > clip


def test_a_caption_is_turned_round_where_it_tells_a_relation():
    assert train_clip.turned(CAPTIONS[0]) == "a fox right of a cat, noto style"
    assert train_clip.turned("a bee above a car") == "a bee below a car"
    assert train_clip.turned(CAPTIONS[1]) == CAPTIONS[1]


def test_shares_are_of_what_is_drawn():
    scenes = [emoji.scene("clip", 0, i) for i in range(30)]
    names, drawn = train_clip.shares(scenes)
    assert names.sum(1).allclose(drawn.sum(1))
    for scene, name, both in zip(scenes, names, drawn, strict=True):
        items = [emoji.article(emoji.CONCEPTS[item.concept]) for item in scene.items]
        assert {train_clip.NAMES[i] for i in name.nonzero()} == set(items)
        assert {train_clip.DRAWN[i] for i in both.nonzero()} == {f"{x}, {scene.style} style" for x in items}
        assert name.sum().item() == pytest.approx(1)


def test_it_is_measured_on_scenes_that_no_model_is_trained_on(drawings):
    held = train_clip.held_out(1, 50) + train_clip.held_out(2, 50)
    assert [len(scene.items) for scene in held] == [1] * 50 + [2] * 50
    assert {scene.kind for scene in held} > {"plain", "pair-held-out"}
    places = {scene.items for scene in held}
    assert len(places) == 100
    own = [scene for step in (0, 1, 99) for scene in train_clip.batch(drawings, step, 32, 16)[1]]
    generators = [
        emoji.scene(split, seed, i) for split in ("train", "vae") for seed in (0, 64) for i in range(50)
    ]
    assert not places & {scene.items for scene in own + generators}


def test_batches_are_functions_of_the_step_at_either_side(drawings):
    small, scenes = train_clip.batch(drawings, 3, 6, 32)
    again, same = train_clip.batch(drawings, 3, 6, 32)
    assert torch.equal(small, again)
    assert scenes == same == train_clip.batch(drawings, 3, 6, 16)[1]
    assert small.shape == (6, 3, 32, 32)
    assert small.abs().max() <= 1
    assert not set(scenes) & set(train_clip.batch(drawings, 4, 6, 16)[1])


def test_every_weight_learns_at_either_side(model, drawings):
    data, loss = train_clip.objective(model.train(), tokenize, drawings, 4, small=1)
    for step in (0, 1):
        model.zero_grad()
        loss(**data(step, 0.0)).backward()
        still = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not still
    model.eval()


@torch.no_grad()
def test_open_clip_loads_what_is_exported(model, tmp_path, drawings):
    tokenizer = words.clip_tokenizer(pad="<pad>")
    tokenizer(CAPTIONS, padding=True, truncation=True)
    train_clip.export(model, tokenizer, tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["padding"] is saved["truncation"] is None
    loaded = judge.Judge.load(tmp_path, drawings)
    torch.testing.assert_close(
        loaded.read(CAPTIONS), train_clip.read(model, tokenize(CAPTIONS)), atol=2e-3, rtol=0
    )
    scenes = train_clip.held_out(2, 3)
    x = train_clip.tensor([emoji.paint(scene, drawings, train_clip.SIZE) for scene in scenes])
    torch.testing.assert_close(loaded.see(scenes), train_clip.see(model, x), atol=2e-3, rtol=0)


def reader(mistaken: dict[emoji.Scene, str]) -> SimpleNamespace:
    """Reads a text as its set of words, and sees in a picture what it is told or what is there."""
    known = sorted({"a", "an", *words.vocabulary()})

    def read(texts: list[str]) -> torch.Tensor:
        bags = [[word in text.replace(",", "").split() for word in known] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(bags).float(), dim=1)

    def see(scenes: list[emoji.Scene], size: int = 0) -> torch.Tensor:
        names = [" ".join(emoji.article(emoji.CONCEPTS[i.concept]) for i in scene.items) for scene in scenes]
        pairs = zip(scenes, names, strict=True)
        return read([mistaken.get(scene, f"{name}, {scene.style} style") for scene, name in pairs])

    def windows(scenes: list[emoji.Scene]) -> torch.Tensor:
        return see(scenes) @ read(train_clip.NAMES).T

    return SimpleNamespace(read=read, see=see, look=see, windows=windows, paint=lambda scene: scene)


def test_the_card_counts_what_is_named_right_and_lists_what_is_not():
    scenes = train_clip.held_out(1, 40)
    told = "a cactus, noto style" if scenes[7].items[0].concept != "cactus" else "a fox, noto style"
    style = next(s for s in emoji.STYLES if s != scenes[9].style)
    name = emoji.article(emoji.CONCEPTS[scenes[9].items[0].concept])
    found = clip_card.singles(reader({scenes[7]: told, scenes[9]: f"{name}, {style} style"}), scenes)
    drawn = emoji.article(emoji.CONCEPTS[scenes[7].items[0].concept])
    assert found["wrong"] == [(7, drawn, told.split(",")[0])]
    assert found["concept"] == pytest.approx(39 / 40)
    assert found["both"] == pytest.approx(38 / 40)
    assert found["table"].startswith("| all | 40 | 97.5% | 95.0% |\n| all, at 64 px | 40 | 97.5% | 95.0% |")
    both = clip_card.couples(reader({}), train_clip.held_out(2, 40))
    assert both["two"] == both["windows"] > 0.9  # words that two names share may hide one
    assert both["relation"] == 0  # a set of words tells no relation


def test_one_drawing_is_named_by_the_whole_picture():
    scenes = train_clip.held_out(1, 3)
    style = next(s for s in emoji.STYLES if s != scenes[1].style)
    name = emoji.article(emoji.CONCEPTS[scenes[1].items[0].concept])
    other = "a cactus, noto style" if scenes[2].items[0].concept != "cactus" else "a fox, noto style"
    seen = reader({scenes[1]: f"{name}, {style} style", scenes[2]: other})
    assert judge.named(seen, scenes, scenes).tolist() == [[True, True], [True, False], [False, False]]


def test_windows_cover_a_picture_and_tell_where_a_drawing_is(tmp_path, model, drawings):
    picture = Image.new("RGB", (128, 128))
    picture.putpixel((127, 127), (255, 0, 0))
    crops = judge.windows(picture)
    assert {crop.size for crop in crops} == {(72, 72)}
    assert [crop.getpixel((71, 71)) == (255, 0, 0) for crop in crops] == [False] * 8 + [True]
    train_clip.export(model, words.clip_tokenizer(pad="<pad>"), tmp_path)
    loaded = judge.Judge.load(tmp_path, drawings)
    shares = loaded.windows([picture, picture])
    assert shares.shape == (2, len(train_clip.NAMES))
    torch.testing.assert_close(shares.sum(1), torch.full((2,), 9.0))

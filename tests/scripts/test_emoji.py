"""The data set: the same everywhere, and what is held out is never trained on."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from scripts import emoji, reference, words

N = 600
CAPTIONS = [
    "a tomato, on a white ground",
    "a fir tree, a sunflower and a snail on a navy ground, noto style",
    "an emojitwo drawing of a red apple and a hamburger on a brown ground",
]
FORM = re.compile(r"^an? [a-z ,]+$")


def test_a_scene_depends_on_split_seed_and_index_alone(drawings):
    forwards = [emoji.scene("train", 0, i) for i in range(20)]
    backwards = [emoji.scene("train", 0, i) for i in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert emoji.scene("train", 1, 0) != forwards[0] != emoji.scene("clip", 0, 0)
    assert np.array_equal(emoji.paint(forwards[3], drawings, 64), emoji.paint(backwards[-4], drawings, 64))


def test_scenes_stay_what_the_checkpoints_were_trained_on():
    assert [emoji.scene("train", 64, i).caption for i in range(3)] == CAPTIONS


@pytest.mark.parametrize("split", ["train", "vae"])
def test_training_sees_nothing_that_is_held_out(split):
    scenes = [emoji.scene(split, 0, i) for i in range(N)]
    assert {scene.kind for scene in scenes} == {"plain"}
    for scene in scenes:
        concepts = [item.concept for item in scene.items]
        assert not set(concepts) & set(emoji.HELD_CONCEPTS)
        assert not any(emoji.held_pair(scene.style, c) for c in concepts)
        assert not any(emoji.held_couple(a, b) for i, a in enumerate(concepts) for b in concepts[:i])


def test_every_concept_is_trained_in_two_styles_or_more():
    for concept in set(emoji.CONCEPTS) - set(emoji.HELD_CONCEPTS):
        assert sum(not emoji.held_pair(style, concept) for style in emoji.STYLES) >= 2


def test_the_shipped_prompts_and_references_are_held_out():
    train = {emoji.scene("train", 64, i).caption for i in range(4 * N)}
    with Path("assets/emoji/prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows) == 200
    assert not train & {row["prompt"] for row in rows}
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == reference.PROMPTS
    with Path("assets/emoji/reference.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == sum(reference.REFERENCES.values())
    assert all((Path("assets/emoji") / name).is_file() for name in names)


def test_captions_keep_to_the_grammar():
    known = set(words.vocabulary()) | {","}
    for i in range(N):
        caption = emoji.scene("clip", 0, i).caption
        assert FORM.match(caption)
        assert set(caption.replace(",", " ,").split()) <= known
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption)


def test_relations_are_true():
    for i in range(N):
        scene = emoji.scene("train", 0, i)
        for word, sign, axis in (("left", -1, "x"), ("right", 1, "x"), ("above", -1, "y"), ("below", 1, "y")):
            if re.search(rf"\b{word}\b", scene.caption):
                one, two = scene.items
                assert sign * (getattr(one, axis) - getattr(two, axis)) > 0


def test_drawings_lie_inside_and_apart(drawings):
    for i in range(N):
        items = emoji.scene("train", 0, i).items
        for item in items:
            assert item.size / 2 - 1e-6 <= min(item.x, item.y)
            assert max(item.x, item.y) <= 1 - item.size / 2 + 1e-6
        for a, b in ((a, b) for k, a in enumerate(items) for b in items[:k]):
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2 - 1e-6


def test_a_scene_is_the_same_at_every_size(drawings):
    scene = emoji.scene("train", 0, 5)
    small, large = (emoji.paint(scene, drawings, size).astype(float) for size in (64, 256))
    coarse = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(coarse - small).mean() < 3

"""GenEval's rules on objects drawn by hand, its detector's instances by their definition, and its scores."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from fovea.eval import Samples, Unavailable
from fovea.eval.geneval import COLOURS, GenEval, colours_in, objects
from fovea.eval.geneval_tasks import KINDS, TASKS, Seen, Task, correct, relations
from fovea.eval.mask2former import Instances, boxes, instances, load

SIDE = 96
LINES = [  # of the layout of evaluation_metadata.jsonl, one of each task
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {
        "tag": "two_object",
        "include": [{"class": "dog", "count": 1}, {"class": "cup", "count": 1}],
        "prompt": "a photo of a dog and a cup",
    },
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "a photo of two cups",
    },
    {
        "tag": "colors",
        "include": [{"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a photo of a red cup",
    },
    {
        "tag": "position",
        "include": [
            {"class": "cup", "count": 1},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a dog left of a cup",
    },
    {
        "tag": "color_attr",
        "include": [
            {"class": "dog", "count": 1, "color": "black"},
            {"class": "cup", "count": 1, "color": "red"},
        ],
        "prompt": "a photo of a black dog and a red cup",
    },
]
BY_TAG = {line["tag"]: Task.model_validate(line) for line in LINES}


def at(*box):
    return Seen(np.array(box), np.ones((1, 1), bool))


LEFT, RIGHT, BELOW = at(0, 40, 20, 60), at(70, 40, 90, 60), at(0, 70, 20, 90)


def no_colours(group, kind):
    raise AssertionError("no colour is asked for")


def all_of(**colours):
    return lambda group, kind: [colours[kind]] * len(group)


@pytest.mark.parametrize(
    ("tag", "seen", "colours", "expected"),
    [
        ("single_object", {"dog": [LEFT], "cat": [RIGHT]}, no_colours, True),
        ("single_object", {"cat": [RIGHT]}, no_colours, False),
        ("two_object", {"dog": [LEFT], "cup": [RIGHT]}, no_colours, True),
        ("two_object", {"dog": [LEFT, RIGHT]}, no_colours, False),
        ("counting", {"cup": [LEFT]}, no_colours, False),
        ("counting", {"cup": [LEFT, RIGHT]}, no_colours, True),
        ("counting", {"cup": [LEFT, RIGHT, BELOW]}, no_colours, False),
        ("colors", {"cup": [LEFT]}, all_of(cup="red"), True),
        ("colors", {"cup": [LEFT]}, all_of(cup="orange"), False),
        ("colors", {}, no_colours, False),
        ("position", {"dog": [LEFT], "cup": [RIGHT]}, no_colours, True),
        ("position", {"dog": [RIGHT], "cup": [LEFT]}, no_colours, False),
        ("position", {"dog": [LEFT, RIGHT], "cup": [RIGHT, LEFT]}, no_colours, True),  # of the surest only
        ("position", {"dog": [BELOW], "cup": [LEFT]}, no_colours, False),
        ("position", {"dog": [LEFT]}, no_colours, False),
        ("color_attr", {"dog": [LEFT], "cup": [RIGHT]}, all_of(dog="black", cup="red"), True),
        ("color_attr", {"dog": [LEFT], "cup": [RIGHT]}, all_of(dog="red", cup="black"), False),
    ],
)
def test_what_is_asked_for(tag, seen, colours, expected):
    assert correct(BY_TAG[tag], seen, colours) is expected


def test_the_colour_is_that_of_the_surest_objects():
    """Of three cups the first two are asked about: one red is enough for one red cup, not for two."""
    two = Task.model_validate(
        {"tag": "colors", "prompt": "x", "include": [{"class": "cup", "count": 2, "color": "red"}]}
    )

    def colours(group, kind):
        return ["red", "blue", "red"][: len(group)]

    cups = {"cup": [LEFT, RIGHT, BELOW]}
    assert correct(BY_TAG["colors"], cups, colours)
    assert not correct(two, cups, colours)


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ((0, 40, 20, 60), {"left of"}),
        ((80, 40, 100, 60), {"right of"}),
        ((40, 0, 60, 20), {"above"}),
        ((40, 80, 60, 100), {"below"}),
        ((0, 0, 20, 20), {"left of", "above"}),
        ((43, 40, 63, 60), set()),  # apart by less than a tenth of both widths
        ((36, 40, 56, 60), set()),  # by four, which is a tenth of both
        ((32, 40, 52, 60), set()),  # by eight: half of it is left, which is not more than half
        ((31, 40, 51, 60), {"left of"}),
        ((0, 20, 20, 40), {"left of"}),  # by fifty and twenty: 46 and 16 of 54
    ],
)
def test_where_a_box_is_from_another(a, expected):
    assert relations(np.array(a), np.array((40, 40, 60, 60))) == expected


def test_every_class_and_colour_of_the_prompts_is_known():
    assert len(set(KINDS)) == len(KINDS) == 80
    assert len(set(COLOURS)) == 10
    assert {w.kind for task in BY_TAG.values() for w in task.include} <= set(KINDS)


def test_instances_are_those_of_their_definition():
    torch.manual_seed(0)
    classes = (3 * torch.randn(7, 5)).softmax(-1)[:, :-1]
    masks = 3 * torch.randn(7, 12, 10)
    found = instances(classes, masks, 0.3)
    expected = []
    for query, kind in np.ndindex(*classes.shape):
        inside = masks[query][masks[query] > 0]
        score = float(classes[query, kind]) * float(inside.sigmoid().mean())
        rows, columns = np.nonzero(masks[query].numpy() > 0)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected.append((score, kind, box))
    expected = sorted((x for x in expected if x[0] > 0.3), reverse=True)
    assert len(expected) > 2
    assert found.kinds.tolist() == [kind for _, kind, _ in expected]
    assert found.boxes.tolist() == [box for _, _, box in expected]
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in expected]))


def test_an_empty_mask_is_no_object():
    nothing = instances(torch.ones(1, 1), -torch.ones(1, 4, 4), 0.3)
    assert [len(x) for x in nothing] == [0] * 4


def test_the_box_of_a_mask():
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, 2:4, 1:7] = True
    mask[1, 5, 0] = True
    assert boxes(mask).tolist() == [[1, 2, 7, 4], [0, 5, 1, 6]]


def test_objects_by_class_are_the_sixteen_surest_above_the_threshold():
    scores = torch.linspace(1, 0.2, 40)
    kinds = torch.tensor([KINDS.index("cup"), KINDS.index("dog")] * 20)
    places = torch.arange(40)[:, None].repeat(1, 4)
    found = objects(Instances(kinds, scores, places, torch.ones(40, 2, 2, dtype=torch.bool)), 0.3)
    assert [seen.box[0] for seen in found["cup"]] == [*range(0, 32, 2)]
    assert [seen.box[0] for seen in found["dog"]] == [*range(1, 33, 2)]
    few = objects(Instances(kinds, scores, places, torch.ones(40, 2, 2, dtype=torch.bool)), 0.9)
    assert [len(seen) for seen in few.values()] == [3, 2]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Mask2Former's architecture with a Swin backbone, small and random, that is sure of dogs and cups."""
    folder = tmp_path_factory.mktemp("mask2former")
    torch.manual_seed(0)
    swin = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    sizes = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "dim_feedforward": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 6}
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**swin, **stages),
        num_labels=80,
        encoder_feedforward_dim=16,
        **sizes,
        **layers,
    )
    network = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        network.class_predictor.weight.mul_(60)
        masks = "decoder.mask_predictor.mask_embedder.2.0"
        network.model.transformer_module.get_submodule(masks).weight.mul_(200)
        for kind, bias in (("dog", 19.0), ("cup", 12.0)):
            network.class_predictor.bias[KINDS.index(kind)] = bias
    network.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 107}
    Mask2FormerImageProcessor(size=size, size_divisor=32, num_labels=80).save_pretrained(folder)
    return folder


@pytest.fixture
def metadata(tmp_path):
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


@pytest.fixture
def metric(detector, backbone, metadata):
    return GenEval(model=str(detector), backbone=backbone, metadata=metadata, device="cpu")


@pytest.fixture(scope="module")
def images():
    """Two of each prompt."""
    torch.manual_seed(1)
    soft = interpolate(torch.rand(24, 3, 5, 5), (SIDE, SIDE + 32), mode="bicubic")
    images, dense = (255 * soft).clamp(0, 255).to(torch.uint8).chunk(2)
    prompts = [line["prompt"] for line in LINES] * 2
    return Samples(images, prompts, [f"{prompt}/{i}" for i, prompt in enumerate(prompts)], dense)


def test_a_detector_sees_the_image_at_its_own_size(detector, images):
    """Its masks are made as large as what the network saw, a multiple of 32, and then as the image."""
    found = load(str(detector), "model", "cpu")(images.images[0], 0.3)
    assert len(found.kinds) > 0
    assert found.masks.shape[1:] == images.images.shape[2:]
    network = Mask2FormerForUniversalSegmentation.from_pretrained(detector).eval()
    processor = Mask2FormerImageProcessor.from_pretrained(detector)
    picture = Image.fromarray(images.images[0].permute(1, 2, 0).numpy())
    inputs = processor(images=picture, return_tensors="pt")
    assert inputs.pixel_values.shape[-2:] == (64, 96)
    assert inputs.pixel_mask.all()
    with torch.no_grad():
        out = network(**inputs)
    logits = interpolate(out.masks_queries_logits, (64, 96), mode="bilinear")
    masks = interpolate(logits, tuple(images.images.shape[2:]), mode="bilinear")[0] > 0
    assert all(any(torch.equal(mask, own) for own in masks) for mask in found.masks)


def test_scores(metric, images):
    scores = {score.name: score for score in metric(images)}
    assert {name: score.facts for name, score in scores.items()} == metric.scores
    each = metric.each(images)
    assert {*each} == {0.0, 1.0}
    by_task = [np.mean(each[i :: len(LINES)]) for i in range(len(LINES))]
    for line, mean in zip(LINES, by_task, strict=True):
        score = scores[f"geneval[{line['tag']}]"]
        assert (score.value, score.n, score.facts.hidden) == (mean, 2, True)
    assert scores["geneval"].value == pytest.approx(np.mean(by_task))
    assert np.mean(scores["geneval"].per_image) == pytest.approx(scores["geneval"].value)
    assert scores["geneval"].difference.value == pytest.approx(
        scores["geneval"].value - metric(images.baseline)[0].value
    )
    alone = [
        metric.each(Samples(x[None], [p], [p]))[0] for x, p in zip(images.images, images.prompts, strict=True)
    ]
    assert each == tuple(alone)


def test_every_task_counts_the_same_however_many_prompts_it_has(metric, images, metadata):
    """Cups, which are everywhere, and a zebra, which is nowhere: the mean over tasks, not over images."""
    cup = {"include": [{"class": "cup", "count": 1}]}
    cups = [LINES[0] | cup | {"prompt": f"a photo of a cup, {i}"} for i in range(3)]
    zebra = {"tag": "colors", "prompt": "a zebra", "include": [{"class": "zebra", "count": 1}]}
    metadata.write_text("".join(json.dumps(line) + "\n" for line in [*cups, zebra]))
    prompts = [line["prompt"] for line in [*cups, zebra]]
    scores = metric(Samples(images.images[:4], prompts, prompts))
    assert [(s.name, s.value, s.n) for s in scores if s.value is not None] == [
        ("geneval", 0.5, 4),
        ("geneval[single_object]", 1.0, 3),
        ("geneval[colors]", 0.0, 1),
    ]


def test_the_overall_score_needs_every_prompt(metric, images):
    some = replace(
        images, images=images.images[:2], dense=None, prompts=images.prompts[:2], keys=images.keys[:2]
    )
    overall, *of_tasks = metric(some)
    assert "4 have no image" in overall.unavailable
    assert overall.remedy == "n=6"
    assert [score.value is None for score in of_tasks] == [False, False, True, True, True, True]


def test_the_overall_score_needs_as_many_images_of_every_prompt(metric, images):
    """Three of a task and two of the others would weigh that task by half more."""
    n = len(images.prompts)
    places = [*range(n), 0]
    keys = [*images.keys, "another"]
    more = Samples(images.images[places], [images.prompts[i] for i in places], keys)
    overall, *of_tasks = metric(more)
    assert "some have 2, others 3" in overall.unavailable
    assert all(score.value is not None for score in of_tasks)


def test_other_prompts_have_no_score(metric, images):
    score, *rest = metric(replace(images, prompts=["a fox", *images.prompts[1:]]))
    assert "1 of 12 prompts are not GenEval's, such as 'a fox'" in score.unavailable
    assert "prompts=geneval" in score.remedy
    assert len(rest) == len(TASKS)


def test_a_colour_is_that_of_the_object_on_grey(backbone, images):
    """The pixels beside the mask have no influence, nor has what lies outside of its box."""
    encoder = backbone.load()
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:60, 30:80] = True
    mask[20:30, 30:40] = False
    pixels = images.images[0, :, :, :SIDE].permute(1, 2, 0).numpy()
    elsewhere = np.where(mask[..., None], pixels, 255 - pixels)
    seen = Seen(np.array((30, 20, 80, 60)), mask)
    named = [colours_in(Image.fromarray(x), encoder)([seen], "cup") for x in (pixels, elsewhere)]
    assert named[0] == named[1]
    cut = np.where(mask[..., None], pixels, 0x99)[20:60, 30:80].astype(np.uint8)
    features = encoder.pictures([Image.fromarray(cut)])["features"]
    templates = ("a photo of a {} cup", "a photo of a {}-colored cup", "a photo of a {} object")
    likest = []
    for colour in COLOURS:
        texts = torch.nn.functional.normalize(encoder.texts([t.format(colour) for t in templates]))
        likest.append(float(torch.cosine_similarity(features, texts.mean(0, keepdim=True))))
    assert named[0] == [COLOURS[int(np.argmax(likest))]]


def test_what_is_missing_is_told_with_a_remedy(metric, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="djghosh13/geneval"):
        replace(metric, metadata=tmp_path / "no.jsonl").check()
    with pytest.raises(Unavailable, match=r"hf download owner/mask2former.*metric.NAME.model=FOLDER"):
        replace(metric, model="owner/mask2former").check()
    metric.check()


def test_nothing_heavy_is_read_before_the_first_image(metric, images):
    """Neither to see what is there, nor where all images have been scored."""
    load.cache_clear()
    metric.check()
    _ = metric.identity
    detector = metric.detector()
    assert "network" not in vars(detector)
    metric(replace(images))
    assert "network" in vars(detector)


def test_a_detector_of_other_classes_is_unavailable(detector, metric, images, tmp_path):
    shutil.copytree(detector, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {str(i): str(i) for i in range(3)}
    config |= {"id2label": names, "label2id": {name: int(name) for name in names}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    score = replace(metric, model=str(tmp_path))(images)[0]
    assert re.search("3 classes|cannot load", score.unavailable)


def test_a_file_that_asks_for_other_objects(metric, metadata):
    metadata.write_text(json.dumps(LINES[0] | {"include": [{"class": "unicorn", "count": 1}]}))
    with pytest.raises(Unavailable, match="unicorn"):
        metric.check()
    metadata.write_text("{}")
    with pytest.raises(Unavailable, match="cannot read"):
        metric.check()


def test_the_file_is_found_in_a_subfolder(metric, tmp_path):
    (tmp_path / "geneval").mkdir()
    moved = metric.metadata.rename(tmp_path / "geneval" / metric.metadata.name)
    assert metric.file() == moved


def test_colours_are_named_by_the_authors_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match=r"create_model\('ViT-L-14-quickgelu', 'openai'\)"):
        GenEval().backbone.weights()

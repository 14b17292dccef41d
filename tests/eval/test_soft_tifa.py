"""Soft-TIFA against transformers' own generation, on a small random Qwen2.5-VL in the published layout."""

import json
from dataclasses import replace
from math import prod

import pytest

from fovea.eval import Unavailable
from fovea.eval.soft_tifa import SoftTIFA, spellings
from fovea.eval.vision_language import load
from tests.eval import chat_model

LINE = {  # of the layout of geneval2_data.jsonl
    "vqa_list": [
        ["How many cats are in the image?", "two"],
        ["Are the cats red?", "Yes"],
        ["Are there cats in the image?", "Yes"],
    ],
    "skills": ["count", "attribute", "object"],
    "atom_count": 3,
}
SPACE = "Ġ"  # as the tokenizer writes it
FIRST_TOKENS = [{"t", "T", "2", SPACE}, {"Yes", "y", SPACE}, {"Yes", "y", SPACE}]


@pytest.fixture
def metric(tiny_vl, samples, tmp_path):
    file = tmp_path / "geneval2_data.jsonl"
    lines = [json.dumps(LINE | {"prompt": prompt}) for prompt in samples.prompts]
    file.write_text("\n".join(lines) + "\n")
    return SoftTIFA(model=str(tiny_vl), metadata=file, device="cpu")


def test_is_the_mean_probability_of_the_right_answers(tiny_vl, metric, samples):
    reply, token = chat_model.replies(tiny_vl)
    geometric, arithmetic = [], []
    for image in samples.images:
        asked = [f"{question} Answer in one word." for question, _ in LINE["vqa_list"]]
        right = [
            sum(reply(image, question)[token(word)].item() for word in words)
            for question, words in zip(asked, FIRST_TOKENS, strict=True)
        ]
        geometric.append(prod(right) ** (1 / 3))
        arithmetic.append(sum(right) / 3)
    found = metric(samples)
    assert [score.name for score in found] == ["soft_tifa[Tiny-VL]", "soft_tifa_am[Tiny-VL]"]
    assert found[0].per_image == pytest.approx(geometric, rel=1e-4)
    assert found[1].per_image == pytest.approx(arithmetic, rel=1e-4)
    assert found[0].value == pytest.approx(sum(geometric) / samples.n, rel=1e-4)
    assert len(set(found[0].per_image)) == samples.n
    assert all(score.difference is not None for score in found)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Is the fox red?", "Yes", {"Yes", "yes", " Yes", " yes"}),
        ("How many foxes are there?", "seven", {"seven", " seven", "Seven", " Seven", "7", " 7"}),
        ("How many foxes are there?", "ten", {"ten", " ten", "Ten", " Ten", "10", " 10"}),
        ("How many foxes are there?", "twelve", {"twelve", " twelve", "Twelve", " Twelve"}),
    ],
)
def test_spellings_of_the_right_answer(question, answer, expected):
    assert {*spellings(question, answer)} == expected


def test_the_same_images_as_the_dense_ones_differ_by_nothing(metric, samples):
    for score in metric(replace(samples, images=samples.dense)):
        assert score.difference.value == score.difference.low == score.difference.high == 0


def test_other_prompts_have_no_questions(metric, samples):
    metric.metadata.write_text(json.dumps(LINE | {"prompt": samples.prompts[0]}))
    for score in metric(replace(samples)):
        assert score.value is None
        assert f"9 of 10 prompts are not GenEval 2's, such as {samples.prompts[1]!r}" in score.unavailable
        assert score.remedy == "prompts=geneval2 n=1"


@pytest.mark.parametrize("text", ["{}", '{"prompt": "a fox", "vqa_list": []}', '{"prompt": "a fox"'])
def test_a_file_of_another_kind(metric, text):
    metric.metadata.write_text(text)
    with pytest.raises(Unavailable, match=r"cannot read .*geneval2_data\.jsonl"):
        metric.check()


def test_what_to_fetch(metric, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match=r"hf download Qwen/Qwen3-VL-8B-Instruct"):
        replace(metric, model="Qwen/Qwen3-VL-8B-Instruct").check()
    with pytest.raises(Unavailable) as missing:
        replace(metric, metadata=tmp_path / "no.jsonl").check()
    assert "geneval2_data.jsonl of https://github.com/facebookresearch/GenEval2" in missing.value.remedy


def test_its_identity_is_of_questions_and_model(metric, samples):
    load.cache_clear()
    before = metric.identity
    assert "network" not in vars(metric.respondent())
    other = metric.metadata.with_name("other.jsonl")
    other.write_text(json.dumps(LINE | {"prompt": "a fox"}))
    assert replace(metric, metadata=other).identity != before

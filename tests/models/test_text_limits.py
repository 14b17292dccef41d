"""Prompts longer than the text encoders read are counted, and never printed."""

import logging

import pytest
import torch

from fovea.models import adapt, generate
from fovea.models.text_limits import describe_truncation
from tests.models.conftest import made
from tests.models.test_sampling import SMALL, euler

LONG = "word " * 60  # the tiny tokenizers have a token for every letter, CLIP's with the space


def test_each_limit_is_counted(name, pipe):
    prompts = ["a fox", "b" * 100, "word " * 60, "w " * 300]
    with adapt(pipe) as model:
        counts = model.count_truncated(prompts)
        for limit in counts:
            reads = [reader for reader in model.pipeline.text_limits() if reader.limit == limit]
            longer = {
                p
                for p in prompts
                for r in reads
                if len(r.tokenizer(r.template(p), verbose=False)["input_ids"]) > limit
            }
            assert counts[limit] == len(longer) > 0
        assert set(counts) == {reader.limit for reader in model.pipeline.text_limits()}
        assert model.count_truncated(["a fox"]) == {}
        assert model.count_truncated([]) == {}
        if name != "lumina":
            assert 16 in model.count_truncated(prompts, max_sequence_length=16)


def test_a_sentence_says_it():
    assert describe_truncation({}, 24) is None
    assert describe_truncation({77: 1}, 24) == "1 of 24 prompts is cut at 77 tokens"
    assert describe_truncation({77: 3, 256: 1}, 24) == "3 of 24 prompts are cut at 77 tokens, 1 at 256"


@pytest.mark.parametrize("family", ["sd3", "lumina", "flux"])
def test_generate_counts_once_and_prints_no_prompt(family, caplog):
    pipe = made(family, torch.float32)
    libraries = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for library in libraries:
        library.addHandler(caplog.handler)
    try:
        generate(
            pipe, ["a", "a b", "c", LONG * 2], method=euler, batch=1, **SMALL | {"max_sequence_length": 32}
        )
    finally:
        for library in libraries:
            library.removeHandler(caplog.handler)
    assert caplog.text.count("of 4 prompts") == 1
    assert "word" not in caplog.text


def test_libraries_say_it_again_afterwards(caplog):
    pipe = made("sd3", torch.float32)
    with adapt(pipe):
        pass
    library = logging.getLogger("diffusers")
    library.addHandler(caplog.handler)
    try:
        pipe.encode_prompt([LONG * 2], None, None)
    finally:
        library.removeHandler(caplog.handler)
    assert "was truncated" in caplog.text

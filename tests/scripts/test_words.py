"""Tokenizers: one token per word, the same after saving, and an empty prompt is never empty."""

import pytest
from transformers import AutoTokenizer

from scripts import emoji, words

NUMBERS = {
    "clip": {"a": [42], "fox": [305], "lemon": [338], "ground": [332]},
    "t5": {"a": [4], "fox": [38], "lemon": [54], "ground": [45]},
    "gemma": {"a": [6], "fox": [418], "lemon": [348], "ground": [295]},
}
TOKENIZERS = {"clip": words.clip_tokenizer, "t5": words.t5_tokenizer, "gemma": words.gemma_tokenizer}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_word_is_one_token_and_unknown_words_are_spelled(name):
    tokenizer = TOKENIZERS[name]()
    for word in words.vocabulary():
        assert len(tokenizer(f"a {word}", add_special_tokens=False).input_ids) == 2
    spelled = tokenizer("a zebra", add_special_tokens=False).input_ids
    assert len(spelled) > 2
    assert tokenizer.unk_token_id not in spelled
    assert len(tokenizer("").input_ids) >= 1


@pytest.mark.parametrize("name", TOKENIZERS)
def test_captions_fit_and_survive_saving(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    captions = [emoji.scene("clip", 0, i).caption for i in range(300)] + [""]
    assert loaded(captions).input_ids == tokenizer(captions).input_ids
    assert max(map(len, loaded(captions).input_ids)) <= words.LENGTH


def test_the_scoring_tokenizer_loads_as_open_clip_loads_it(tmp_path):
    words.clip_tokenizer(pad="<pad>").save_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("a fox", padding="max_length").input_ids
    assert ids.index(max(ids)) == 3  # the end of the text has the highest number: where CLIP pools


def test_a_tokenizer_is_the_same_in_every_process():
    """The numbers of words are part of what a checkpoint means: resumed training must find the same ones."""
    for name, make in TOKENIZERS.items():
        tokenizer, known = make(), NUMBERS[name]
        assert known == {word: tokenizer(word, add_special_tokens=False).input_ids for word in known}

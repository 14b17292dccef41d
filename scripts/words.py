"""Tokenizers and text encoders of the embedded models: stock transformers classes on the captions' words.

Every word of the captions is one token; other words are split into letters, so any prompt can be encoded.
"""

import json
import string
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    GemmaConfig,
    GemmaModel,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from scripts import emoji

LETTERS = list(string.ascii_lowercase + string.digits + ".,!?'-")
GRAMMAR = "a an and on of left right above below small drawing style ground"
CLIP, T5, GEMMA = 128, 256, 192  # widths
LENGTH = 32  # tokens; captions have up to 20 words and commas, and one or two special tokens


def vocabulary() -> list[str]:
    """Return every word that can occur in a caption, sorted."""
    words = [GRAMMAR, *emoji.CONCEPTS.values(), *emoji.STYLES, *emoji.GROUNDS]
    return sorted({word for phrase in words for word in phrase.split()})


def _merges(words: list[str], **options) -> Any:
    """Return byte-pair merges that make each word one token, the same in every process."""
    tokenizer = Tokenizer(BPE(**options))
    # otherwise the trainer numbers word-final letters at random, which changes how it breaks ties
    ends = [letter + options.get("end_of_word_suffix", "") for letter in LETTERS]
    trainer = BpeTrainer(vocab_size=10**6, show_progress=False, special_tokens=ends, **options)
    tokenizer.train_from_iterator(words, trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def _ids(
    special: list[str], letters: list[str], merges: list[tuple[str, str]], last: list[str]
) -> dict[str, int]:
    tokens = dict.fromkeys([*special, *letters, *(a + b for a, b in merges), *last])
    return {token: i for i, token in enumerate(tokens)}


def clip_tokenizer(length: int = LENGTH, pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Return CLIP's tokenizer. `<|endoftext|>` has the highest id, as CLIP's pooling expects."""
    merges = _merges(vocabulary(), end_of_word_suffix="</w>")
    ends = [c + "</w>" for c in LETTERS]
    special = [] if pad == "<|endoftext|>" else [pad]
    ids = _ids(special, LETTERS + ends, merges, ["<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=length, pad_token=pad)


def t5_tokenizer(length: int = LENGTH) -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [("▁" + word, -2.0) for word in vocabulary() if word != "▁"]
    pieces += [(letter, -6.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def gemma_tokenizer() -> GemmaTokenizer:
    """Return Gemma's tokenizer with `<bos>`, off by default in transformers 5; no prompt is all padding."""
    words = vocabulary()
    merges = _merges(words + ["▁" + word for word in words])
    ids = _ids(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"], LETTERS, merges, [])
    return GemmaTokenizer(vocab=ids, merges=merges, add_bos_token=True, model_max_length=256)


def clip_text(tokenizer: Any, *, project: bool, dim: int = CLIP, layers: int = 2):
    """Return CLIP's text model, with the projection that SD3 uses if `project`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=4 * dim,
        num_hidden_layers=layers,
        num_attention_heads=dim // 32,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=dim,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if project else CLIPTextModel)(config)


def t5_text(tokenizer: T5Tokenizer, *, dim: int = T5, layers: int = 2) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=dim,
            d_kv=32,
            d_ff=2 * dim,
            num_layers=layers,
            num_heads=dim // 64,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,  # pyright: ignore[reportCallIssue]  accepted, though not declared
        )
    )


def gemma_text(tokenizer: GemmaTokenizer, *, dim: int = GEMMA, layers: int = 3) -> GemmaModel:
    """Return Gemma. Lumina reads the second-to-last layer, so two of three layers are used."""
    return GemmaModel(
        GemmaConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=3 * dim,
            num_hidden_layers=layers,
            num_attention_heads=dim // 32,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=256,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
            use_cache=False,  # nothing is generated
        )
    )

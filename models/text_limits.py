"""Prompts longer than the text encoders read: counted once, instead of warned about at each encoding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

TOLD_BY_LIBRARIES = "was truncated because", "longer than the specified maximum sequence length"
TOKENIZERS = "transformers.tokenization_utils_base"


class Reader(NamedTuple):
    """A text encoder's tokenizer with its limit.

    limit: number of tokens the encoder reads, including special tokens.
    written: maps a prompt to the tokenizer's input, e.g. by a chat template.
    """

    tokenizer: Any
    limit: int
    written: Callable[[str], str] = str

    def longer(self, prompts: Sequence[str]) -> set[int]:
        """Return the indices of prompts that are truncated."""
        texts = [self.written(prompt) for prompt in prompts]
        ids = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        return {i for i, tokens in enumerate(ids) if len(tokens) > self.limit}


def cut(readers: Sequence[Reader], prompts: Sequence[str]) -> dict[int, int]:
    """Return the limits that some prompts exceed, with the number of those prompts."""
    longer: dict[int, set[int]] = {}
    for reader in readers:
        longer.setdefault(reader.limit, set()).update(reader.longer(prompts))
    return {limit: len(found) for limit, found in sorted(longer.items()) if found}


def cuts_in_words(counts: dict[int, int], of: int) -> str | None:
    """Describe the result of `cut` on `of` prompts in a sentence; None if nothing is truncated."""
    if not counts:
        return None
    (limit, first), *others = counts.items()
    more = "".join(f", {count} at {limit}" for limit, count in others)
    return f"{first} of {of} prompts {'is' if first == 1 else 'are'} cut at {limit} tokens{more}"


@contextmanager
def untold(pipeline: type) -> Iterator[None]:
    """Suppress the libraries' truncation warnings, which print the prompts, while the block lasts."""
    loggers = [logging.getLogger(name) for name in (pipeline.__module__, TOKENIZERS)]

    def keep(record: logging.LogRecord) -> bool:
        return not any(text in str(record.msg) for text in TOLD_BY_LIBRARIES)

    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)

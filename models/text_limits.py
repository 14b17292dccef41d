"""Prompts longer than the text encoders read: counted once, instead of warned about at each encoding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

TRUNCATION_MESSAGES = "was truncated because", "longer than the specified maximum sequence length"
TOKENIZERS = "transformers.tokenization_utils_base"


class TextLimit(NamedTuple):
    """A text encoder's tokenizer with its limit.

    limit: number of tokens the encoder reads, including special tokens.
    template: maps a prompt to the tokenizer's input, e.g. by a chat template.
    """

    tokenizer: Any
    limit: int
    template: Callable[[str], str] = str

    def truncated(self, prompts: Sequence[str]) -> set[int]:
        """Return the indices of prompts that are truncated."""
        texts = [self.template(prompt) for prompt in prompts]
        ids = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        return {i for i, tokens in enumerate(ids) if len(tokens) > self.limit}


def count_truncated(text_limits: Sequence[TextLimit], prompts: Sequence[str]) -> dict[int, int]:
    """Return the limits that some prompts exceed, with the number of those prompts."""
    longer: dict[int, set[int]] = {}
    for reader in text_limits:
        longer.setdefault(reader.limit, set()).update(reader.truncated(prompts))
    return {limit: len(found) for limit, found in sorted(longer.items()) if found}


def describe_truncation(counts: dict[int, int], of: int) -> str | None:
    """Describe `count_truncated` of `of` prompts in a sentence; None if nothing is truncated."""
    if not counts:
        return None
    (limit, first), *others = counts.items()
    more = "".join(f", {count} at {limit}" for limit, count in others)
    return f"{first} of {of} prompts {'is' if first == 1 else 'are'} cut at {limit} tokens{more}"


@contextmanager
def suppress_truncation_warnings(pipeline: type) -> Iterator[None]:
    """Suppress the libraries' truncation warnings, which print the prompts, while the block lasts."""
    loggers = [logging.getLogger(name) for name in (pipeline.__module__, TOKENIZERS)]

    def keep(record: logging.LogRecord) -> bool:
        return not any(text in str(record.msg) for text in TRUNCATION_MESSAGES)

    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)

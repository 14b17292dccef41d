"""Prompts longer than the text encoders read: counted once, instead of printed at every encoding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

TOLD_BY_LIBRARIES = "was truncated because", "longer than the specified maximum sequence length"
TOKENIZERS = "transformers.tokenization_utils_base"


class Reader(NamedTuple):
    """A text encoder's tokenizer and how many of its tokens, the special ones included, the encoder reads.

    written: what the tokenizer is given for a prompt, where that is more than the prompt (a chat template).
    """

    tokenizer: Any
    limit: int
    written: Callable[[str], str] = str

    def longer(self, prompts: Sequence[str]) -> set[int]:
        """Which of the prompts are cut."""
        texts = [self.written(prompt) for prompt in prompts]
        ids = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        return {i for i, tokens in enumerate(ids) if len(tokens) > self.limit}


def cut(readers: Sequence[Reader], prompts: Sequence[str]) -> dict[int, int]:
    """Limits that some of the prompts exceed, each with the number of those that do."""
    longer: dict[int, set[int]] = {}
    for reader in readers:
        longer.setdefault(reader.limit, set()).update(reader.longer(prompts))
    return {limit: len(found) for limit, found in sorted(longer.items()) if found}


def cuts_in_words(counts: dict[int, int], of: int) -> str | None:
    """`cut` of so many prompts as a sentence; None where nothing is cut."""
    if not counts:
        return None
    (limit, first), *others = counts.items()
    more = "".join(f", {count} at {limit}" for limit, count in others)
    return f"{first} of {of} prompts {'is' if first == 1 else 'are'} cut at {limit} tokens{more}"


@contextmanager
def untold(pipeline: type) -> Iterator[None]:
    """For as long as it lasts, the libraries do not print the prompts that they cut."""
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

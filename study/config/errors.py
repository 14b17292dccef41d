"""Reject an input with one message that quotes the value, states what is allowed and suggests the nearest
spelling."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

LONGEST = 200  # characters of a value that a message repeats
LONG_WORD = re.compile(r"\S{301,}")
LONGEST_LINE = 3000


class Refused(ValueError):
    """An invalid input. run.py prints the message, with long parts shortened in the middle, and exits with
    status 2."""

    def __init__(self, message: str):
        super().__init__("\n".join(map(_abridged, message.split("\n"))))


def nearest(word: object, allowed: Iterable[str], meant: Sequence[str] = ()) -> str:
    """Return the allowed words after the one closest in spelling, or after those that are known to be meant:
    "did you mean ratio? allowed: ratio, start"."""
    allowed = sorted(allowed)
    close = get_close_matches(str(word).lower(), [a.lower() for a in allowed], n=1, cutoff=0.5)
    meant = meant or [a for a in allowed if [a.lower()] == close][:1]
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    return f"{hint}allowed: {', '.join(allowed) or 'nothing'}"


def _abridged(line: str) -> str:
    line = LONG_WORD.sub(lambda word: _shortened_middle(word[0], LONGEST), line)
    return line if len(line) <= LONGEST_LINE else _shortened_middle(line, LONGEST_LINE)


def _shortened_middle(text: str, most: int) -> str:
    return f"{text[: most * 3 // 4]}...{text[-most // 4 :]}"


def as_text(value: Any) -> str:
    """Return a value as messages quote it: YAML's null, true and false, and at most LONGEST characters."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

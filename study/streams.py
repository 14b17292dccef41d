"""What is written to the terminal: any encoding, closed, full or cut off, a stream ends no study; and no text
that is stored steers a terminal."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

# Escapes and other controls, but for the end of a line and the tab; marks that turn the direction of writing.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Text of a user, a method or a library as it may be printed: what steers a terminal as a stand-in."""
    return STEERING.sub(lambda found: _stand_in(ord(found[0])), text)


def _stand_in(code: int) -> str:
    """The sign for a control character, which fonts have for the old ones."""
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def print_summary(summary: Mapping[str, Any]) -> None:
    """The last line of standard output: one JSON object, escaped as far as the stream's encoding needs it."""
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, default=str)
    text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    sys.stderr.flush()
    print(text)

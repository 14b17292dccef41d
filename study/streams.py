"""Terminal output that cannot end a study, whatever the encoding and even if the stream is closed, full or
cut off; stored text cannot send control sequences to the terminal."""

import codecs
import errno
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO
from unicodedata import normalize

# Escape and other control characters except newline and tab, and marks that change the text direction.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
STAND_INS = {"–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "†": "+", "‡": "++", "↑": "^", "↓": "v"}
STAND_INS |= {"∞": "inf", "Δ": "d", "σ": "sigma", "…": "...", "’": "'", "“": '"', "”": '"'}


class TolerantFile(io.FileIO):
    """A file descriptor whose writes never fail: after the first error (a closed pipe, a full disk), data are
    dropped."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


def tolerate_errors() -> None:
    """Replace stdout and stderr with streams whose errors cannot end a study."""
    for number in range(3):  # the next file opened would get the number of a closed descriptor
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _tolerant(1, sys.stdout), _tolerant(2, sys.stderr)


def _tolerant(number: int, given: TextIO | None) -> TextIO:
    """Return a text stream to a descriptor that drops data it cannot write. given: the stream as the
    interpreter opened it; None if the descriptor was closed."""
    raw = TolerantFile(number, "w", closefd=False)
    encoding = given.encoding if given else "utf-8"
    lines, through = raw.isatty() or number == 2, bool(getattr(given, "write_through", False))
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "stand-ins", line_buffering=lines, write_through=through)


def flush() -> None:
    """Flush both streams at exit, and report a write error on stdout unless the reader closed the pipe."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, TolerantFile) and raw.error and raw.error.errno != errno.EPIPE:
        print(f"not all of it could be printed: {raw.error.strerror}", file=sys.stderr)
    sys.stderr.flush()


def printable(text: str, encoding: str) -> str:
    """Replace characters that the encoding lacks: × by x, é by e, any other by a question mark."""
    return "".join(char if _encodable(char, encoding) else _stand_in(char, encoding) for char in text)


def _encodable(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _stand_in(char: str, encoding: str) -> str:
    bare = "".join(part for part in normalize("NFKD", char) if _encodable(part, encoding))
    return STAND_INS.get(char) or bare or "?"


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return printable(error.object[error.start : error.end], error.encoding), error.end


codecs.register_error("stand-ins", _unencodable)


def plain(text: str) -> str:
    """Return text from a user, a method or a library with terminal control characters replaced by visible
    symbols."""
    return STEERING.sub(lambda found: _control_picture(ord(found[0])), text)


def _control_picture(code: int) -> str:
    """Return the visible symbol of a control character; Unicode has one for each in ASCII."""
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the last line of stdout: one JSON object, escaped as far as the stream's encoding requires."""
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, default=str)
    text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    if sys.stderr:
        sys.stderr.flush()
    print(text)

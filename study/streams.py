"""What is written to the terminal: whatever its encoding, closed, full or cut off, a stream ends no study;
and no stored text steers a terminal."""

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

# Escapes and other controls but for the line's end and the tab, and marks that turn the direction of writing.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
STAND_INS = {"–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "†": "+", "‡": "++", "↑": "^", "↓": "v"}
STAND_INS |= {"∞": "inf", "Δ": "d", "σ": "sigma", "…": "...", "’": "'", "“": '"', "”": '"'}


class Lasting(io.FileIO):
    """A descriptor that takes everything: from the first failure on, a pipe that has ended or a disk that is
    full, what is written is dropped."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return len(data)


def lasting() -> None:
    """Puts standard streams in place that a study cannot fail by."""
    for number in range(3):  # a descriptor that is closed would be given to the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _lasting(1, sys.stdout), _lasting(2, sys.stderr)


def _lasting(number: int, given: TextIO | None) -> TextIO:
    """given: the stream as the interpreter opened it, None where the descriptor was closed."""
    raw = Lasting(number, "w", closefd=False)
    encoding = given.encoding if given else "utf-8"
    lines, through = raw.isatty() or number == 2, bool(getattr(given, "write_through", False))
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "stand-ins", line_buffering=lines, write_through=through)


def flush() -> None:
    """At the end: what could not be printed is told where that says something new."""
    sys.stdout.flush()
    lost = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(lost, Lasting) and lost.lost and lost.lost.errno != errno.EPIPE:
        print(f"not all of it could be printed: {lost.lost.strerror}", file=sys.stderr)
    sys.stderr.flush()


def printable(text: str, encoding: str) -> str:
    """What the encoding cannot say stands in other letters: × as x, é as e, else a question mark."""
    return "".join(sign if _known(sign, encoding) else _stand_in(sign, encoding) for sign in text)


def _known(sign: str, encoding: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _stand_in(sign: str, encoding: str) -> str:
    bare = "".join(part for part in normalize("NFKD", sign) if _known(part, encoding))
    return STAND_INS.get(sign) or bare or "?"


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return printable(error.object[error.start : error.end], error.encoding), error.end


codecs.register_error("stand-ins", _unencodable)


def plain(text: str) -> str:
    """Text of a user, a method or a library as it may be printed: signs for what steers a terminal."""
    return STEERING.sub(lambda found: _sign(ord(found[0])), text)


def _sign(code: int) -> str:
    """Of a control character; fonts have one for each of ASCII's."""
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def print_summary(summary: Mapping[str, Any]) -> None:
    """The last line of standard output: one JSON object, escaped as far as the stream's encoding needs it."""
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, default=str)
    text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    if sys.stderr:
        sys.stderr.flush()
    print(text)

"""The data model of tables, from which terminal, Markdown, LaTeX, CSV, Parquet, page and `show=` are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fovea.eval.interval import Interval
from fovea.study.streams import plain

Digits = tuple[tuple[float, int], ...]  # (upper limit of the size, number of decimals)
FIGURE: Digits = ((10, 3), (100, 2), (math.inf, 1))  # three to four significant digits
TIME: Digits = ((1, 3), (math.inf, 2))
FACTOR: Digits = ((math.inf, 2),)
COUNT: Digits = ((math.inf, 0),)
HUGE = 1e6  # numbers from here on are written with an exponent
NOTHING, STAR = "–", " *"
LONGEST = 500  # characters of a text before it is cut
LINE_ENDS = {ord(c): " " for c in "\n\r\t\u2028\u2029"}


@dataclass(frozen=True)
class Entry:
    """One entry of a table.

    value: the data, also used for sorting; None if there is none.
    low, high: bounds of its interval.
    error: its standard error.
    mark: reference to a note, appended to the text.
    text: shown instead of the value: `reference`, `3/24`.
    """

    value: Any = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    mark: str = ""
    text: str | None = None


def bounded(interval: Interval | None, mark: str = "") -> Entry:
    """Return an entry with the value and bounds of an interval; without bounds if it has none (level 0)."""
    if interval is None:
        return Entry(mark=mark)
    low, high = (x if interval.level and not math.isnan(x) else None for x in (interval.low, interval.high))
    return Entry(interval.value, low, high, mark=mark)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    key: name in the data.
    title: heading; a column without one is in the data only.
    spread: uncertainty stored with each value.
    digits, unit, scale, signed: number format; numbers are divided by `scale`.
    best: sort order that puts the best first.
    group: heading above several columns on the page.
    brief: whether a narrow terminal shows it.
    left: whether it holds left-aligned text.
    """

    key: str
    title: str = ""
    spread: Literal["", "interval", "error"] = ""
    digits: Digits = FIGURE
    unit: str = ""
    scale: float = 1
    signed: bool = False
    best: Literal["ascending", "descending"] = "descending"
    group: str = ""
    brief: bool = True
    left: bool = False

    def main(self, entry: Entry) -> str:
        """Format the value, without its uncertainty."""
        if entry.text is not None:
            return visible(entry.text)
        if entry.value is None:
            return NOTHING
        if isinstance(entry.value, str):
            return visible(entry.value)
        return f"{self.number(entry.value, entry.value)}{self.unit}"

    def around(self, entry: Entry) -> str:
        """Format the interval or the standard error, with as many decimals as the value."""
        if entry.text is not None or not _finite(entry.value):
            return ""
        if entry.error is not None:
            return f"± {self._plain(entry.error, entry.value)}"
        if entry.low is None or entry.high is None or entry.low == entry.high:
            return ""
        low, high = (self._plain(x, entry.value) for x in (entry.low, entry.high))
        return f"[{low}, {high}]"

    def text(self, entry: Entry, brief: bool = False) -> str:
        """Format an entry in one line; without its uncertainty if `brief`."""
        parts = [self.main(entry), "" if brief else self.around(entry)]
        return " ".join(filter(None, parts)) + entry.mark

    def number(self, x: float, like: float) -> str:
        """Format x with as many decimals as `like` has."""
        return f"{'+' if self.signed and x >= 0 else ''}{self._plain(x, like)}"

    def _plain(self, x: float, like: float) -> str:
        return formatted(x / self.scale, like / self.scale, self.digits)


@dataclass(frozen=True)
class Table:
    """A table.

    rows: entries by the key of their column.
    notes: shown below the table.
    warning: shown prominently, such as that weights are random.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Entry]]
    notes: Sequence[str] = ()
    title: str = ""
    warning: str = ""

    @property
    def shown(self) -> list[Column]:
        """The columns with a heading."""
        return [column for column in self.columns if column.title]

    @property
    def all_notes(self) -> list[str]:
        """The warning, if any, and the notes."""
        return [*filter(None, [self.warning]), *self.notes]

    def lines(self, brief: bool = False) -> list[list[str]]:
        """Return header and body as text. brief: for a narrow terminal."""
        columns = [column for column in self.shown if column.brief or not brief]
        head = [visible(column.title) for column in columns]
        return [head, *([c.text(row[c.key], brief) for c in columns] for row in self.rows)]

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per row, with KEY and, by `spread`, KEY_low and KEY_high, or KEY_se."""
        return [{k: v for c in self.columns for k, v in _fields(c, row[c.key]).items()} for row in self.rows]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _fields(column: Column, entry: Entry) -> dict[str, Any]:
    fields = {column.key: entry.value}
    if column.spread == "interval":
        fields |= {f"{column.key}_low": entry.low, f"{column.key}_high": entry.high}
    if column.spread == "error":
        fields |= {f"{column.key}_se": entry.error}
    return fields


def formatted(x: float, like: float | None = None, digits: Digits = FIGURE) -> str:
    """Format a number with its significant digits; a bound or an error with the decimals of `like`."""
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    size = abs(x if like is None or math.isinf(like) else like)
    if max(abs(x), size) >= HUGE:
        return f"{x:.3g}".replace("-", "−")
    places = next(places for below, places in digits if size < below)
    return f"{x:.{places}f}".replace("-", "−")


def visible(text: str) -> str:
    """Make an untrusted text safe to print: in one line, cut if very long, without control characters.

    Escape sequences and characters that change the direction of writing are replaced.
    """
    cut = text[:LONGEST].translate(LINE_ENDS).encode("utf-8", "replace").decode()
    return plain(cut) if len(text) <= LONGEST else f"{plain(cut)} … ({len(text)} characters in all)"

"""A table as data. Terminal, Markdown, LaTeX, CSV, Parquet, the page and `show=` are drawn from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fovea.eval.interval import Interval
from fovea.study.streams import plain

Digits = tuple[tuple[float, int], ...]  # (below this size, so many decimals)
FIGURE: Digits = ((10, 3), (100, 2), (math.inf, 1))  # three to four that mean something
TIME: Digits = ((1, 3), (math.inf, 2))
FACTOR: Digits = ((math.inf, 2),)
COUNT: Digits = ((math.inf, 0),)
HUGE = 1e6  # from here on numbers have an exponent
NOTHING, STAR = "–", " *"
LONGEST = 500  # characters that are shown of a text
LINE_ENDS = {ord(c): " " for c in "\n\r\t\u2028\u2029"}


@dataclass(frozen=True)
class Entry:
    """What stands in one place.

    value: what is told, compared and sorted by; None where there is none. low, high: bounds of its interval;
    error: its standard error. mark: of a note below, as it follows the rest. text: stands in place of the
    value: `reference`, `3/24`.
    """

    value: Any = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    mark: str = ""
    text: str | None = None


def bounded(interval: Interval | None, mark: str = "") -> Entry:
    """Without an interval nothing; a single draw has no bounds."""
    if interval is None:
        return Entry(mark=mark)
    low, high = (x if interval.level and not math.isnan(x) else None for x in (interval.low, interval.high))
    return Entry(interval.value, low, high, mark=mark)


@dataclass(frozen=True)
class Column:
    """key: its name in data. title: its heading in text; a column without one is data alone.

    spread: what else the data have of each value. digits, unit, signed: how numbers are written, and by what
    they are divided for it. best: the order in which the best comes first. group: the heading over it on a
    page. brief: whether a narrow terminal has it. left: of text.
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
        if entry.text is not None:
            return visible(entry.text)
        if entry.value is None:
            return NOTHING
        if isinstance(entry.value, str):
            return visible(entry.value)
        return f"{self.number(entry.value, entry.value)}{self.unit}"

    def around(self, entry: Entry) -> str:
        """The interval, or the standard error, to the places of the value."""
        if entry.text is not None or not _finite(entry.value):
            return ""
        if entry.error is not None:
            return f"± {self._plain(entry.error, entry.value)}"
        if entry.low is None or entry.high is None or entry.low == entry.high:  # no spread to show
            return ""
        low, high = (self._plain(x, entry.value) for x in (entry.low, entry.high))
        return f"[{low}, {high}]"

    def text(self, entry: Entry, brief: bool = False) -> str:
        """All of it in one line; if brief, without what is around the value."""
        parts = [self.main(entry), "" if brief else self.around(entry)]
        return " ".join(filter(None, parts)) + entry.mark

    def number(self, x: float, like: float) -> str:
        """x to the places of another."""
        return f"{'+' if self.signed and x >= 0 else ''}{self._plain(x, like)}"

    def _plain(self, x: float, like: float) -> str:
        return figure(x / self.scale, like / self.scale, self.digits)


@dataclass(frozen=True)
class Table:
    """rows: entries by the key of their column. notes: what a reader must know. warning: what stands over
    all of it."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Entry]]
    notes: Sequence[str] = ()
    title: str = ""
    warning: str = ""

    @property
    def shown(self) -> list[Column]:
        return [column for column in self.columns if column.title]

    @property
    def all_notes(self) -> list[str]:
        """The notes, the warning first."""
        return [*filter(None, [self.warning]), *self.notes]

    def lines(self, brief: bool = False) -> list[list[str]]:
        """Header and body as text. brief: for a narrow terminal."""
        columns = [column for column in self.shown if column.brief or not brief]
        head = [visible(column.title) for column in columns]
        return [head, *([c.text(row[c.key], brief) for c in columns] for row in self.rows)]

    def records(self) -> list[dict[str, Any]]:
        """A flat record per row: KEY, KEY_low and KEY_high, KEY_se."""
        return [{k: v for c in self.columns for k, v in _flat(c, row[c.key]).items()} for row in self.rows]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _flat(column: Column, entry: Entry) -> dict[str, Any]:
    own = {column.key: entry.value}
    if column.spread == "interval":
        own |= {f"{column.key}_low": entry.low, f"{column.key}_high": entry.high}
    if column.spread == "error":
        own |= {f"{column.key}_se": entry.error}
    return own


def figure(x: float, like: float | None = None, digits: Digits = FIGURE) -> str:
    """A number with the digits that mean something; an error or a bound to the places of its figure."""
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    size = abs(x if like is None or math.isinf(like) else like)
    if max(abs(x), size) >= HUGE:
        return f"{x:.3g}".replace("-", "−")
    places = next(places for below, places in digits if size < below)
    return f"{x:.{places}f}".replace("-", "−")


def visible(text: str, longest: int = LONGEST) -> str:
    """A text of whatever origin in one line, of a very long one the beginning; what would steer a terminal or
    turn the direction of writing is a stand-in."""
    cut = text[:longest].translate(LINE_ENDS).encode("utf-8", "replace").decode()
    return plain(cut) if len(text) <= longest else f"{plain(cut)} … ({len(text)} characters in all)"

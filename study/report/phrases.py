"""The pieces of which a report's sentences are made. What a user wrote is escaped."""

from collections.abc import Iterable, Sequence
from typing import Literal

from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.report.table import LEVEL, cells, short
from fovea.study.report.tables import entry

NAMED = 3  # cells that a sentence names before it counts them


def settings(rows: Sequence[Row]) -> list[Row]:
    """The method's cells, as far as they ran and are switched on."""
    return [row for row in rows if row.cell.role == "method" and row.n and not row.cell.off]


def cost(rows: Sequence[Row]) -> Literal["time", "FLOPs"]:
    return "FLOPs" if any(row.cost == "flops" for row in rows) else "time"


def survives(row: Row, name: str, sign: int = 1) -> bool:
    """Whether a gain, or for sign -1 a loss, is there beyond chance, all gains of the table considered."""
    interval, p = row.gain.get(name), row.gain_holm.get(name)
    return interval is not None and p is not None and p <= LEVEL and interval.value * sign > 0


def above(row: Row, name: str) -> bool:
    """Whether the interval of a gain lies above zero."""
    interval = row.gain.get(name)
    return interval is not None and interval.level > 0 and interval.low > 0


def cell(row: Row) -> Markup:
    return Markup("<b>{}</b>").format(row.cell.label)


def cells_or_count(rows: Sequence[Row]) -> Markup:
    return joined(map(cell, rows)) if len(rows) <= NAMED else Markup("{} settings").format(len(rows))


def score(name: str) -> Markup:
    return Markup('<span class="score">{}</span>').format(short(name))


def gains(rows: Sequence[Row]) -> dict[tuple[str, str], Markup]:
    """By cell and score: `PSNR (+4.653 [3.396, 5.930])`, in the digits of the table."""
    head, *body = cells(rows)
    named = {f"gain {short(name)}": name for row in rows for name in row.gain}
    return {
        (row.cell.id, named[column]): _gain(named[column], text)
        for row, line in zip(rows, body, strict=True)
        for column, text in zip(head, line, strict=True)
        if column in named
    }


def _gain(name: str, text: str) -> Markup:
    found = entry(text)
    return Markup("{} ({})").format(score(name), " ".join(filter(None, (found.main, found.spread))))


def joined(parts: Iterable[str], last: str = "and") -> Markup:
    """a; a and b; a, b and c."""
    listed = list(parts)
    if len(listed) < 2:
        return Markup("").join(listed)
    return Markup("{} {} {}").format(Markup(", ").join(listed[:-1]), last, listed[-1])


def paragraph(sentences: Sequence[Markup]) -> Markup:
    return Markup(" ").join(sentences)

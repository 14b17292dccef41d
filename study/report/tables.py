"""The table as a page shows it: the digits of every other form, the figure above its interval, and a number
to sort by."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fovea.study.analysis.row import Row
from fovea.study.report.table import cells

FIGURE = re.compile(r"^[+−]?(?:∞|\d+(?:\.\d+)?)")
PARTS = re.compile(r"^(?P<main>.*?)(?: (?P<spread>\[.*\]|± [^ ]+))?(?P<mark>†| \*)?$")
CHEAP = ("s/image", "J/image", "memory")  # less is better
COST = ("s/image", "speedup", "FLOPs ratio")


@dataclass(frozen=True)
class Column:
    """best: the order in which the best comes first. group: of the heading above it."""

    name: str
    group: str
    best: Literal["ascending", "descending"]


@dataclass(frozen=True)
class Entry:
    """spread: an interval or a standard error. number: to sort by; None, always last, where there is none."""

    main: str
    spread: str = ""
    mark: str = ""
    number: float | None = None


@dataclass(frozen=True)
class Line:
    cell: str
    label: str
    role: str
    failed: bool
    off: bool
    entries: list[Entry]


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    lines: list[Line]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbours under one heading, and how many they are."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found


def table(rows: Sequence[Row]) -> Table:
    head, *body = cells(rows)
    flops = any(row.cost == "flops" for row in rows)
    columns = [_column(name, "FLOPs" if flops else "time") for name in head]
    return Table(columns, [_line(row, line) for row, line in zip(rows, body, strict=True)])


def _column(name: str, cost: str) -> Column:
    if name.startswith("gain "):
        return Column(
            name.removeprefix("gain "), f"gain over step reduction at the same {cost}", "descending"
        )
    if name.startswith("margin "):
        return Column(name.removeprefix("margin "), "within its margin", "ascending")
    if name in (*COST, *CHEAP):
        group = "cost" if name in COST else ""
        return Column(name, group, "ascending" if name in CHEAP else "descending")
    if name[-1] in "↑↓":
        return Column(name, "quality", "ascending" if name[-1] == "↓" else "descending")
    return Column(name, "", "descending")


def _line(row: Row, line: Sequence[str]) -> Line:
    failed = row.failure is not None
    return Line(row.cell.id, line[0], row.cell.role, failed, row.cell.off, [entry(text) for text in line[1:]])


def entry(text: str) -> Entry:
    """ "2.29× [2.17, 2.38]†" in its parts."""
    found = PARTS.match(text)
    if found is None:
        return Entry(text)
    parts = {name: (part or "").strip() for name, part in found.groupdict().items()}
    return Entry(parts["main"], parts["spread"], parts["mark"], number(text))


def number(text: str) -> float | None:
    """The figure that a text begins with."""
    found = FIGURE.match(text)
    if found is None:
        return None
    plain = found[0].replace("−", "-").replace("+", "")
    return math.copysign(1e308, -1 if "-" in plain else 1) if "∞" in plain else float(plain)

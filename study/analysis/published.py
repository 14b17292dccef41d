"""A paper's table, row by row, and what was measured beside each printed value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from fovea.eval.interval import Interval
from fovea.study.analysis.measures import measured
from fovea.study.analysis.paper import Column, Paper, rounded
from fovea.study.analysis.row import Row
from fovea.study.config.instantiate import build

LEVEL = 0.95
NO_CELL = "no cell of this run"
SIZES = ("seconds", "images_per_second", "teraflops", "memory_gib")


@dataclass(frozen=True)
class Beside:
    """One printed value. low, high: what its digits leave open, in the printed unit. comparable: not the time
    or size of a stand-in. inside: whether low to high meets the measured interval, of 95 % at least; None
    without one. why: nothing was measured."""

    cell: str
    column: str
    text: str
    printed: float
    low: float
    high: float
    measured: Interval | None = None
    comparable: bool = True
    why: str | None = None

    @property
    def difference(self) -> float | None:
        return self.measured.value - self.printed if self.measured and self.comparable else None

    @property
    def inside(self) -> bool | None:
        if self.measured is None or not self.comparable or self.measured.level < LEVEL:
            return None
        return self.measured.low <= self.high and self.low <= self.measured.high


@dataclass(frozen=True)
class Table:
    """A paper's rows in its order: label to its values by column, or to the note on why it is not re-run."""

    paper: Paper
    rows: Mapping[str, Mapping[str, Beside]]
    notes: Mapping[str, str] = field(default_factory=dict)


def beside(node: Mapping[str, Any], scale: Mapping[str, Any], rows: Sequence[Row]) -> Table:
    """node: `paper` of an experiment's config. scale: that of the study, which says what stands for which
    model."""
    paper: Paper = build(node, "paper", "fovea.study")
    of, lines = {row.cell.label: row for row in rows}, paper.lines()
    by_id = {row.cell.id: row for row in rows}
    dense = {line.get("model"): line for line in lines if line["cell"] == "dense"}
    found: dict[str, dict[str, Beside]] = {}
    for line in lines:
        label, note = _label(line, scale), line.get("note") or ""
        found[label], row = {}, of.get(label)
        for name, column in paper.columns.items():
            value = _value(line, dense.get(line.get("model"), {}), label, name, column)
            if value is not None:
                value = replace(value, comparable=not (scale["models"] and column.of in SIZES))
                found[label][name] = _set_beside(value, column, row, row and by_id.get(row.cell.dense), note)
    return Table(paper, found, {_label(line, scale): line["note"] for line in lines if line.get("note")})


def _label(line: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    model = line.get("model") or ""
    model = f"{model} ({scale['name']})" if model in scale["models"] else model
    return f"{model} {line['cell']}".strip()


def _value(
    line: Mapping[str, str], dense: Mapping[str, str], label: str, name: str, column: Column
) -> Beside | None:
    """None where nothing is printed."""
    text = line.get(column.over_dense or name) or ""
    if not text:
        return None
    bounds = rounded(text)
    if column.over_dense is None:
        return Beside(label, name, text, sum(bounds) / 2, *bounds)
    if not dense.get(column.over_dense):
        return None
    unit = rounded(dense[column.over_dense])
    quotients = [1.0] if line is dense else [a / b for a, b in product(bounds, unit)]
    middle = sum(bounds) / sum(unit)
    return Beside(label, name, f"{middle:.2f}", middle, min(quotients), max(quotients))


def _set_beside(value: Beside, column: Column, row: Row | None, dense: Row | None, note: str) -> Beside:
    if column.of is None:
        return replace(value, why="Fovea has no such metric")
    if row is None:
        return replace(value, why=note or NO_CELL)
    interval = measured(row, dense, column.of)
    if interval is None:
        return replace(value, why=f"{column.of} was not measured in this run")
    middle, low, high = (x / column.times for x in (interval.value, interval.low, interval.high))
    return replace(value, measured=replace(interval, value=middle, low=low, high=high))

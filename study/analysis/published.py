"""Published results: a paper's table as data, and what was measured beside each of its values.

conf/experiment/NAME.csv holds the values as they are printed, a line per row of the paper's table: `cell` is
the label of this study's cell that re-runs it, `model` its model where there are several, `note` why a row is
not re-run, `version` of the paper that a row stands in where not all are in one. Digits count: .34 stands for
all from .335 to .345."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any

from pydantic.dataclasses import dataclass as checked

from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row, score_interval
from fovea.study.config.groups import CONF
from fovea.study.config.instantiate import instantiate

TITLE = "Published results, beside what was measured"
FOLDER = CONF / "experiment"
LEVEL = 0.95
NO_CELL = "no cell of this run"
SIZES = ("seconds", "images_per_second", "teraflops", "memory_gib")


@checked(frozen=True, config={"extra": "forbid"})
class Column:
    """of: the figure measured beside a printed column, of `FIGURES` or a score; None where Fovea has none.
    times: by what a printed value is to be multiplied for our unit. over_dense: the printed value is that of
    this column over that of the dense row."""

    of: str | None = None
    times: float = 1.0
    over_dense: str | None = None


@checked(frozen=True, config={"extra": "forbid"})
class Paper:
    """protocol: what the paper did, and where this differs. source: the table and whose it is. values: its
    file in conf/experiment. columns: of the printed table, in order. remarks: on this table. needs: what a
    full run takes."""

    protocol: tuple[str, ...]
    source: str
    values: str
    columns: dict[str, Column]
    remarks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __post_init__(self):
        known = self.lines()[0].keys()
        for name, column in self.columns.items():
            if (column.over_dense or name) not in known:
                raise ValueError(f"columns.{name}: {self.values} has {', '.join(known)}")

    def lines(self) -> list[dict[str, str]]:
        """The table as it is printed. ValueError where it cannot be read."""
        try:
            with open(FOLDER / self.values, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
        except OSError as error:
            raise ValueError(f"values={self.values}: {error.strerror or error}") from None
        if not found or "cell" not in found[0]:
            raise ValueError(f"values={self.values}: needs a column `cell` and at least one line")
        return found


def rounded(text: str) -> tuple[float, float]:
    """What a printed number may have been before it was rounded. ValueError where it is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} in a paper's table is no number") from None
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    return float(value - half), float(value + half)


@dataclass(frozen=True)
class Value:
    """One printed value. low, high: what its digits leave open, in the printed unit. comparable: not the time
    or size of a stand-in. inside: whether low to high meets the measured interval, of 95 % at least; None
    without one. why: nothing was measured."""

    cell: str
    column: str
    text: str
    published: float
    low: float
    high: float
    measured: Interval | None = None
    comparable: bool = True
    why: str | None = None

    @property
    def difference(self) -> float | None:
        return self.measured.value - self.published if self.measured and self.comparable else None

    @property
    def inside(self) -> bool | None:
        if self.measured is None or not self.comparable or self.measured.level < LEVEL:
            return None
        return self.measured.low <= self.high and self.low <= self.measured.high


@dataclass(frozen=True)
class Results:
    """A paper's rows in its order: label to its values by column, or to the note on why it is not re-run."""

    paper: Paper
    rows: Mapping[str, Mapping[str, Value]]
    notes: Mapping[str, str] = field(default_factory=dict)


def published(node: Mapping[str, Any], scale: Mapping[str, Any], rows: Sequence[Row]) -> Results:
    """node: `paper` of an experiment's config. scale: that of the study, which says what stands for which
    model."""
    paper: Paper = instantiate(node, "paper", "fovea.study")
    of, lines = {row.cell.label: row for row in rows}, paper.lines()
    by_id = {row.cell.id: row for row in rows}
    dense = {line.get("model"): line for line in lines if line["cell"] == "dense"}
    found: dict[str, dict[str, Value]] = {}
    for line in lines:
        label, note = _label(line, scale), line.get("note") or ""
        found[label], row = {}, of.get(label)
        for name, column in paper.columns.items():
            value = _value(line, dense.get(line.get("model"), {}), label, name, column)
            if value is not None:
                value = replace(value, comparable=not (scale["models"] and column.of in SIZES))
                found[label][name] = _with_measured(
                    value, column, row, row and by_id.get(row.cell.dense), note
                )
    return Results(paper, found, {_label(line, scale): line["note"] for line in lines if line.get("note")})


def _label(line: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    model = line.get("model") or ""
    model = f"{model} ({scale['name']})" if model in scale["models"] else model
    return f"{model} {line['cell']}".strip()


def _value(
    line: Mapping[str, str], dense: Mapping[str, str], label: str, name: str, column: Column
) -> Value | None:
    """None where nothing is printed."""
    text = line.get(column.over_dense or name) or ""
    if not text:
        return None
    bounds = rounded(text)
    if column.over_dense is None:
        return Value(label, name, text, sum(bounds) / 2, *bounds)
    if not dense.get(column.over_dense):
        return None
    unit = rounded(dense[column.over_dense])
    quotients = [1.0] if line is dense else [a / b for a, b in product(bounds, unit)]
    middle = sum(bounds) / sum(unit)
    return Value(label, name, f"{middle:.2f}", middle, min(quotients), max(quotients))


def _with_measured(value: Value, column: Column, row: Row | None, dense: Row | None, note: str) -> Value:
    if column.of is None:
        return replace(value, why="Fovea has no such metric")
    if row is None:
        return replace(value, why=note or NO_CELL)
    interval = measured(row, dense, column.of)
    if interval is None:
        return replace(value, why=f"{column.of} was not measured in this run")
    middle, low, high = (x / column.times for x in (interval.value, interval.low, interval.high))
    return replace(value, measured=replace(interval, value=middle, low=low, high=high))


def measured(row: Row, dense: Row | None, name: str) -> Interval | None:
    """A figure of `FIGURES`, or a score; None where the row has none. dense: its baseline's row."""
    return FIGURES[name](row, dense) if name in FIGURES else _score(row, name)


def _score(row: Row, name: str) -> Interval | None:
    score = row.scores.get(name)
    return None if score is None or score.value is None else score_interval(score, row)


def _exactly(value: float | None) -> Interval | None:
    """FLOPs and memory are counted, not drawn."""
    return None if value is None else Interval(value, value, value, 1.0)


def _end_to_end(row: Row) -> Interval | None:
    """Seconds per image with the text encoded and the image decoded."""
    if row.seconds is None or row.speed is None:
        return None
    parts = row.seconds, row.speed.encode, row.speed.decode
    value, low, high = (sum(getattr(part, at) for part in parts) for at in ("value", "low", "high"))
    return Interval(value, low, high, row.seconds.level)


def _faster(row: Row, dense: Row | None) -> Interval | None:
    """With text and decoding; the bounds are those of both times at their worst."""
    mine, whole = _end_to_end(row), dense and _end_to_end(dense)
    if mine is None or whole is None:
        return None
    if row is dense:
        return Interval(1.0, 1.0, 1.0, 1.0)
    bounds = whole.value / mine.value, whole.low / mine.high, whole.high / mine.low
    return Interval(*bounds, min(mine.level, whole.level))


def _per_second(row: Row) -> Interval | None:
    whole = _end_to_end(row)
    return whole and Interval(1 / whole.value, 1 / whole.high, 1 / whole.low, whole.level)


FIGURES: Mapping[str, Callable[[Row, Row | None], Interval | None]] = {
    "seconds": lambda row, _: _end_to_end(row),
    "images_per_second": lambda row, _: _per_second(row),
    "end_to_end_speedup": _faster,
    "speedup": lambda row, _: row.speedup,
    "flops_ratio": lambda row, _: _exactly(row.flops_ratio),
    "teraflops": lambda row, _: _exactly(row.flops and row.flops / 1e12),
    "memory_gib": lambda row, _: _exactly(row.memory and row.memory / 2**30),
}

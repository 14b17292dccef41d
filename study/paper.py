"""A paper's table as data, and what was measured beside it.

conf/experiment/NAME.csv holds the values as they are printed, a line per row of the paper's table: `cell` is
the label of this study's cell that re-runs it, `model` its model where there are several, `note` why a row is
not re-run. Digits count: .34 stands for all from .335 to .345."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as checked

if TYPE_CHECKING:
    from eval.interval import Interval
    from study.row import Row

FOLDER = Path(__file__).resolve().parent.parent / "conf" / "experiment"
KEYS = ("model", "cell", "note")
Z = 1.96  # standard errors to a 95 % interval, for scores without one of their own


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


@dataclass(frozen=True)
class Beside:
    """One printed value. low, high: what its digits leave open, in the unit of what is measured. inside:
    whether that meets the measured 95 % interval. why: nothing was measured, or with no interval."""

    cell: str
    column: str
    text: str
    low: float
    high: float
    measured: "Interval | None" = None
    why: str | None = None

    @property
    def printed(self) -> float:
        return (self.low + self.high) / 2

    @property
    def difference(self) -> float | None:
        return None if self.measured is None else self.measured.value - self.printed

    @property
    def inside(self) -> bool | None:
        if self.measured is None or not self.measured.level:
            return None
        return self.measured.low <= self.high and self.low <= self.measured.high


@dataclass(frozen=True)
class Table:
    """A paper's rows in its order: label to its values by column, or to the note on why it is not re-run."""

    paper: Paper
    rows: Mapping[str, Mapping[str, Beside]]
    notes: Mapping[str, str] = field(default_factory=dict)


def beside(node: Mapping[str, Any], scale: Mapping[str, Any], rows: Sequence["Row"]) -> Table:
    """node: `paper` of an experiment's config. scale: that of the study, which says what stands for which
    model."""
    from study.build import build

    paper: Paper = build(node, "paper", "study")
    measured = {row.cell.label: row for row in rows}
    lines, found, notes = paper.lines(), {}, {}
    for line in lines:
        label = _label(line, scale)
        dense = next((d for d in lines if d["cell"] == "dense" and d.get("model") == line.get("model")), {})
        values = {name: _value(line, dense, label, name, column) for name, column in paper.columns.items()}
        row, note = measured.get(label), line.get("note") or ""
        found[label] = {
            name: _measured(value, paper.columns[name], row, note) for name, value in values.items() if value
        }
        if note:
            notes[label] = note
    return Table(paper, found, notes)


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
    bounds = _rounded(text)
    if column.over_dense is None:
        return Beside(label, name, text, *bounds)
    if not dense.get(column.over_dense):
        return None
    unit = _rounded(dense[column.over_dense])
    quotients = [1.0] if line is dense else [a / b for a, b in product(bounds, unit)]
    middle = sum(bounds) / sum(unit)
    return Beside(label, name, f"{middle:.2f}", min(quotients), max(quotients))


def _rounded(text: str) -> tuple[float, float]:
    """What a printed number may have been before it was rounded. ValueError where it is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} in a paper's table is no number") from None
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    return float(value - half), float(value + half)


def _measured(value: Beside, column: Column, row: "Row | None", note: str) -> Beside:
    if column.of is None:
        return replace(value, why="Fovea has no such metric")
    if row is None:
        return replace(value, why=note or "no cell of this run")
    interval = FIGURES[column.of](row) if column.of in FIGURES else _score(row, column.of)
    if interval is None:
        return replace(value, why=f"{column.of} was not measured in this run")
    middle, low, high = (x / column.times for x in (interval.value, interval.low, interval.high))
    return replace(value, measured=replace(interval, value=middle, low=low, high=high))


def _score(row: "Row", name: str) -> "Interval | None":
    """Student's interval over prompts; of a figure of the whole set, from its standard error."""
    from eval.interval import Interval
    from eval.statistics import mean_interval

    score = row.scores.get(name)
    if score is None or score.value is None:
        return None
    if score.per_image is not None:
        return mean_interval(score.per_image, score.pool, row.prompts or None)
    half = Z * (score.se or 0.0)
    return Interval(score.value, score.value - half, score.value + half, 0.95 if score.se else 0.0)


def _exactly(value: float | None) -> "Interval | None":
    from eval.interval import Interval

    return None if value is None else Interval(value, value, value, 0.0)


def _end_to_end(row: "Row") -> "Interval | None":
    """Seconds per image with the text encoded and the image decoded."""
    from eval.interval import Interval

    if row.seconds is None or row.speed is None:
        return None
    parts = row.seconds, row.speed.encode, row.speed.decode
    return Interval(
        *(sum(getattr(p, at) for p in parts) for at in ("value", "low", "high")), row.seconds.level
    )


def _per_second(row: "Row") -> "Interval | None":
    from eval.interval import Interval

    whole = _end_to_end(row)
    return whole and Interval(1 / whole.value, 1 / whole.high, 1 / whole.low, whole.level)


FIGURES: Mapping[str, Callable[["Row"], "Interval | None"]] = {
    "seconds": _end_to_end,
    "images_per_second": _per_second,
    "speedup": lambda row: row.speedup,
    "flops_ratio": lambda row: _exactly(row.flops_ratio),
    "teraflops": lambda row: _exactly(row.flops and row.flops / 1e12),
    "memory_gib": lambda row: _exactly(row.memory and row.memory / 2**30),
}

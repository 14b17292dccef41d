"""A paper's published table as data, with the measured value next to each published one.

conf/experiment/NAME.csv holds the values as printed, one line per row of the paper's table. Its other columns
are `cell`, the label of the study's cell that reproduces the row; `model`, if the table has several; `note`,
why a row is not reproduced; and `version` of the paper that has the row, if they differ. The printed digits
matter: .34 stands for anything from .335 to .345.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any

from pydantic.dataclasses import dataclass as checked

from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row, score_interval
from fovea.study.config.groups import CONF, options, read_option
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.nodes import full_model

TITLE = "Published results, beside what was measured"
FOLDER = CONF / "experiment"
LEVEL = 0.95
NO_CELL = "no cell of this run"
SIZES = ("seconds", "images_per_second", "teraflops", "memory_gib")
# settings of a model without which it is not what the paper ran
OF_MODEL = ("height", "width", "steps", "guidance", "negative", "max_sequence_length", "quantize")


@checked(frozen=True, config={"extra": "forbid"})
class Column:
    """What a printed column is compared with.

    of: the measured figure, a key of `FIGURES` or the name of a score; None if Fovea has no such figure.
    times: factor from the printed unit to ours.
    over_dense: name of a printed column; the value is the row's entry there divided by that of the dense row.
    """

    of: str | None = None
    times: float = 1.0
    over_dense: str | None = None


@checked(frozen=True, config={"extra": "forbid"})
class Paper:
    """A published table and how to compare with it.

    protocol: what the paper did, and how the experiment differs.
    source: the table and its authors.
    values: its CSV file in conf/experiment.
    columns: the columns to compare, in order.
    remarks: on this table.
    needs: resources of a full run.
    model: file of conf/model with the paper's model, unless the table names one in each row.
    images: number of images that its scores are of, if known.
    """

    protocol: tuple[str, ...]
    source: str
    values: str
    columns: dict[str, Column]
    remarks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    model: str | None = None
    images: int | None = None

    def __post_init__(self):
        known = self.lines()[0].keys()
        for name, column in self.columns.items():
            if (column.over_dense or name) not in known:
                raise ValueError(f"columns.{name}: {self.values} has {', '.join(known)}")

    def lines(self) -> list[dict[str, str]]:
        """Read the table as printed. Raises ValueError if it cannot be read."""
        try:
            with open(FOLDER / self.values, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
        except OSError as error:
            raise ValueError(f"values={self.values}: {error.strerror or error}") from None
        if not found or "cell" not in found[0]:
            raise ValueError(f"values={self.values}: needs a column `cell` and at least one line")
        return found


def rounded(text: str) -> tuple[float, float]:
    """Return the range of values that round to a printed number. Raises ValueError if it is not a number."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} in a paper's table is no number") from None
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    return float(value - half), float(value + half)


@dataclass(frozen=True)
class Value:
    """One published value and its measured counterpart, in the printed unit.

    low, high: range of values that round to the printed digits.
    stands_in: whether another model, or other settings of it, stand in for the paper's; agreement would be
        chance.
    comparable: false for the time or size of a stand-in, and for an `uneven` score.
    uneven: whether the score is of another number of images than the paper's, on which it depends.
    why: reason if nothing was measured.
    """

    text: str
    published: float
    low: float
    high: float
    stands_in: bool = False
    comparable: bool = True
    uneven: bool = False
    measured: Interval | None = None
    why: str | None = None

    @property
    def difference(self) -> float | None:
        return self.measured.value - self.published if self.measured and self.comparable else None

    @property
    def inside(self) -> bool | None:
        """True if the rounding range meets the measured interval; None without one of at least 95 %, for a
        stand-in, and for what is not comparable."""
        if self.measured is None or self.stands_in or not self.comparable or self.measured.level < LEVEL:
            return None
        return self.measured.low <= self.high and self.low <= self.measured.high


@dataclass(frozen=True)
class Results:
    """The rows of a paper's table, in its order.

    rows: values by column, for the label of each row.
    notes: why a row is not reproduced, by label.
    unlike: how the model of a row differs from the paper's, by label, except for a scale's stand-ins.
    """

    paper: Paper
    rows: Mapping[str, Mapping[str, Value]]
    notes: Mapping[str, str] = field(default_factory=dict)
    unlike: Mapping[str, str] = field(default_factory=dict)


def published(node: Mapping[str, Any], scale: Mapping[str, Any], rows: Sequence[Row]) -> Results:
    """Match the rows of a study with a published table.

    node: `paper` of the experiment's config.
    scale: `scale` of the study's config, which names the models that stand in for the paper's.
    """
    paper: Paper = instantiate(node, "paper", "fovea.study")
    lines, scaled = paper.lines(), bool(scale["models"])
    files = {} if scaled else {name: read_option("model", name) for name in options("model")}
    by_label, by_id = {row.cell.label: row for row in rows}, {row.cell.id: row for row in rows}
    dense = {line.get("model"): line for line in lines if line["cell"] == "dense"}
    found: dict[str, dict[str, Value]] = {}
    others: dict[str, str] = {}
    for line in lines:
        label, note = _label(line, scale), line.get("note") or ""
        row, found[label] = by_label.get(label), {}
        baseline = row and by_id.get(row.cell.dense)
        if row and (other := unlike(line.get("model") or paper.model, row.cell.model, files)):
            others[label] = other
        stands_in = scaled or label in others
        for name, column in paper.columns.items():
            value = _value(line, dense.get(line.get("model"), {}), name, column)
            if value is not None:
                uneven = row is not None and _is_uneven(row, column.of, paper.images)
                comparable = not uneven and not (stands_in and column.of in SIZES)
                value = replace(value, stands_in=stands_in, comparable=comparable, uneven=uneven)
                found[label][name] = _with_measured(value, column, row, baseline, note)
    notes = {_label(line, scale): line["note"] for line in lines if line.get("note")}
    return Results(paper, found, notes, others)


def unlike(name: str | None, model: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return in words how a cell's model differs from one of the files of conf/model; empty if it does not.

    Another path is another model only if it is that of another file: `model.path` may be a copy of the
    weights.
    """
    if name is None or name not in files:
        return ""
    expected = full_model(dict(files[name]))[0]
    another = [n for n, file in files.items() if file.get("path") == model.get("path") != expected["path"]]
    settings = [
        f"{key} {model[key]} for {expected[key]}"
        for key in OF_MODEL
        if key in model and model[key] != expected[key]
    ]
    return ", ".join([*(f"{other} for {name}" for other in another[:1]), *settings])


def _is_uneven(row: Row, name: str | None, images: int | None) -> bool:
    score = row.scores.get(name) if name else None
    return score is not None and images is not None and score.facts.biased and score.n != images


def _label(line: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    model = line.get("model") or ""
    model = f"{model} ({scale['name']})" if model in scale["models"] else model
    return f"{model} {line['cell']}".strip()


def _value(line: Mapping[str, str], dense: Mapping[str, str], name: str, column: Column) -> Value | None:
    """Return the published value of a line, or None if nothing is printed there."""
    text = line.get(column.over_dense or name)
    if not text:
        return None
    bounds = rounded(text)
    if column.over_dense is None:
        return Value(text, sum(bounds) / 2, *bounds)
    if not dense.get(column.over_dense):
        return None
    dense_bounds = rounded(dense[column.over_dense])
    quotients = [1.0] if line is dense else [a / b for a, b in product(bounds, dense_bounds)]
    middle = sum(bounds) / sum(dense_bounds)
    return Value(f"{middle:.2f}", middle, min(quotients), max(quotients))


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
    """Return a figure of `FIGURES` or a score of a row, or None. dense: row of its baseline."""
    return FIGURES[name](row, dense) if name in FIGURES else _score(row, name)


def _score(row: Row, name: str) -> Interval | None:
    score = row.scores.get(name)
    return None if score is None or score.value is None else score_interval(score, row)


def _exact(value: float | None) -> Interval | None:
    """Return a zero-width interval: FLOPs and memory are counted, not sampled."""
    return None if value is None else Interval(value, value, value, 1.0)


def _end_to_end(row: Row) -> Interval | None:
    """Return seconds per image, including text encoding and decoding."""
    if row.seconds is None or row.speed is None:
        return None
    parts = row.seconds, row.speed.encode, row.speed.decode
    value, low, high = (sum(getattr(part, at) for part in parts) for at in ("value", "low", "high"))
    return Interval(value, low, high, row.seconds.level)


def _end_to_end_speedup(row: Row, dense: Row | None) -> Interval | None:
    """Return the speedup including text encoding and decoding; its bounds pair opposite ends of the times."""
    time, dense_time = _end_to_end(row), dense and _end_to_end(dense)
    if time is None or dense_time is None:
        return None
    if row is dense:
        return Interval(1.0, 1.0, 1.0, 1.0)
    bounds = dense_time.value / time.value, dense_time.low / time.high, dense_time.high / time.low
    return Interval(*bounds, min(time.level, dense_time.level))


def _images_per_second(row: Row) -> Interval | None:
    time = _end_to_end(row)
    return time and Interval(1 / time.value, 1 / time.high, 1 / time.low, time.level)


FIGURES: Mapping[str, Callable[[Row, Row | None], Interval | None]] = {
    "seconds": lambda row, _: _end_to_end(row),
    "images_per_second": lambda row, _: _images_per_second(row),
    "end_to_end_speedup": _end_to_end_speedup,
    "speedup": lambda row, _: row.speedup,
    "flops_ratio": lambda row, _: _exact(row.flops_ratio),
    "teraflops": lambda row, _: _exact(row.flops and row.flops / 1e12),
    "memory_gib": lambda row, _: _exact(row.memory and row.memory / 2**30),
}

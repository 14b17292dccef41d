"""What the plots of quality against cost show, as data: panels of one score each, their series and points."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fovea.eval import Score
from fovea.eval.front import on_front
from fovea.eval.interval import Interval
from fovea.study.analysis.bootstrap import sign
from fovea.study.analysis.row import Cost, Row, score_interval
from fovea.study.report.study_table import shown_scores
from fovea.study.report.style import COLOURS, INK, MUTED

MARKERS = "osD^v"  # the next one each time the colours are used up
Bounds = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True)
class Point:
    """One cell in a plot.

    x: cost of dense over that of the cell.
    y: the score.
    text: label that distinguishes it within its series, or its own name.
    front_probability: to be on the Pareto front.
    """

    cell: str
    x: Bounds
    y: Bounds
    text: str
    front_probability: float


@dataclass(frozen=True)
class Series:
    """Cells drawn alike. swept: the key in which those of one baseline differ, and along which a line joins
    them; "" for separate points."""

    name: str
    role: Literal["dense", "steps", "method", "sibling"]
    colour: str
    marker: str
    swept: str = ""
    points: tuple[Point, ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def joined(self) -> bool:
        return bool(self.swept)


@dataclass(frozen=True)
class Panel:
    """One score against the cost, for the cells of one baseline.

    model: name of the baseline's model if there are several.
    front: Pareto front of the point estimates, cheapest first.
    infinite: labels of cells with an infinite score, whose images all equal the dense ones.
    """

    score: Score
    cost: Cost
    model: str
    series: tuple[Series, ...]
    front: tuple[Point, ...]
    infinite: tuple[str, ...]


def panels_of(rows: Sequence[Row], cost: Cost) -> list[Panel]:
    """Return one panel per score and baseline, without empty ones."""
    known = [row for row in rows if _x(row, cost)]
    drawn, models = series(known), _baselines(known)
    panels = [_panel(models[m], drawn, score, m, cost) for score in shown_scores(known) for m in models]
    return [panel for panel in panels if any(one.points for one in panel.series)]


def series(rows: Sequence[Row]) -> list[Series]:
    """Group rows into the dense runs, step reduction per baseline, the methods, and sibling models.

    Methods that vary the same keys form curves over the setting with the most values; otherwise, and where
    no setting varies, each method is a set of points.
    """
    methods = [row for row in rows if row.cell.role == "method"]
    same_axes = len({frozenset(row.cell.axes) for row in methods}) <= 1
    swept = _swept_key(methods) if same_axes else ""
    models = _models(rows)
    named = _by_curve(methods, swept, models) if swept else _by_series(methods, models)
    dense = tuple(row for row in rows if row.cell.role == "dense")
    found = [Series("dense", "dense", INK, "D", rows=dense)]
    steps = [row for row in rows if row.cell.role == "steps"]
    for name in dict.fromkeys(row.cell.series for row in steps):
        curve = tuple(row for row in steps if row.cell.series == name)
        found.append(Series(name, "steps", MUTED, "o", "method.steps", rows=curve))
    for i, (name, group) in enumerate(named.items()):
        turn, colour = divmod(i, len(COLOURS))
        marker = MARKERS[turn % len(MARKERS)]
        found.append(Series(name, "method", COLOURS[colour], marker, swept, rows=tuple(group)))
    siblings = _by_series([row for row in rows if row.cell.role == "sibling"], models)
    for i, (name, group) in enumerate(siblings.items(), len(named)):
        found.append(Series(name, "sibling", COLOURS[i % len(COLOURS)], "*", rows=tuple(group)))
    return found


def _swept_key(rows: Sequence[Row]) -> str:
    """Return the setting with the most values among the cells of one baseline; "" if none has several."""
    values: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        for key, value in row.cell.axes.items():
            if "." in key:  # a group, such as the method, is not an axis to join points along
                values.setdefault(key, {}).setdefault(row.cell.dense, set()).add(str(value))
    most = {key: max(map(len, by_baseline.values())) for key, by_baseline in values.items()}
    swept = max(most, key=lambda key: most[key], default="")
    return swept if most.get(swept, 0) > 1 else ""


def _by_curve(methods: Sequence[Row], swept: str, models: Mapping[str, str]) -> dict[str, list[Row]]:
    """Group methods into curves: cells of one baseline that differ only in the swept key."""
    found: dict[str, list[Row]] = {}
    for row in methods:
        name, axes = _without_model(row, models), row.cell.axes
        others = [f"{k.split('.')[-1]}={v}" for k, v in axes.items() if "." in k and k != swept]
        fixed = [text for text in others if f" {text} " not in f"{name} "]
        found.setdefault(f"{' '.join([name, *fixed])} ({swept.split('.')[-1]})", []).append(row)
    return found


def _without_model(row: Row, models: Mapping[str, str]) -> str:
    """Return the series without the model's name, which its panel has: a method looks alike in all panels."""
    return row.cell.series.removeprefix(f"{models.get(row.cell.dense, '')} ")


def _by_series(rows: Sequence[Row], models: Mapping[str, str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_without_model(row, models), []).append(row)
    return found


def _models(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of each baseline's model by the baseline's id; "" if there is only one."""
    dense = [row.cell for row in rows if row.cell.role == "dense"]
    return {cell.id: cell.label.removesuffix("dense").strip() for cell in dense}


def _baselines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by baseline, keyed by the model's name ("" if there is only one)."""
    names = _models(rows)
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(names.get(row.cell.dense, ""), []).append(row)
    return found


def _panel(rows: Sequence[Row], drawn: Sequence[Series], score: Score, model: str, cost: Cost) -> Panel:
    name, direction = score.name, sign(score.better)
    places = {row.cell.id: (x, y) for row in rows if (x := _x(row, cost)) and (y := _y(row, name))}
    ranked = [row.cell.id for row in rows if not row.failure and row.cell.role != "diagnosis"]
    ranked = [i for i in ranked if i in places]
    best = on_front([1 / places[i][0][0] for i in ranked], [direction * places[i][1][0] for i in ranked])
    front_ids = {i for i, is_best in zip(ranked, best, strict=True) if is_best}

    def point(row: Row, swept: str) -> Point:
        at_front = float(row.cell.id in front_ids)
        sure = row.front.get(name, at_front) if cost == row.cost else at_front
        return Point(row.cell.id, *places[row.cell.id], _point_label(row, swept, model), sure)

    own = {row.cell.id for row in rows} & places.keys()
    found = [
        replace(one, points=tuple(point(row, one.swept) for row in one.rows if row.cell.id in own))
        for one in drawn
    ]
    front = [p for one in found for p in one.points if p.cell in front_ids]
    infinite = [r.cell.label for r in rows if name in r.scores and math.isinf(r.scores[name].value or 0)]
    ordered = tuple(sorted(front, key=lambda p: (-p.x[0], direction * p.y[0])))
    return Panel(score, cost, model, tuple(found), ordered, tuple(infinite))


def _point_label(row: Row, swept: str, model: str) -> str:
    """Return the swept value for a point of a curve, else the cell's own name if it has one."""
    if swept:
        return str(row.cell.axes.get(swept, ""))
    own = row.cell.role == "method" and not row.cell.label.startswith(row.cell.series)
    return row.cell.label.removeprefix(model).strip() if own else ""


def _x(row: Row, cost: Cost) -> Bounds | None:
    if cost == "flops":
        return (row.flops_ratio, row.flops_ratio, row.flops_ratio) if row.flops_ratio else None
    return bounds(row.speedup) if row.speedup else None


def _y(row: Row, name: str) -> Bounds | None:
    """Return a score with its 95 % interval, of the difference to dense where images are paired."""
    score = row.scores.get(name)
    if score is None or score.value is None or not math.isfinite(score.value):
        return None
    value, low, high = bounds(score.difference or score_interval(score, row))
    return score.value, score.value + (low - value), score.value + (high - value)


def bounds(interval: Interval) -> Bounds:
    """Return value and bounds; an unknown bound becomes the value."""
    low, high = (x if math.isfinite(x) else interval.value for x in (interval.low, interval.high))
    return interval.value, low, high

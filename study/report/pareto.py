"""Plots of quality against cost: their contents as data, and the drawing that pareto.png and page share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from fovea.eval import Score
from fovea.eval.front import on_front
from fovea.eval.interval import Interval
from fovea.study.analysis.row import Cost, Row, score_interval
from fovea.study.report.study_table import headline
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, bar_colour, drawable, figure, save

MARKERS = "osD^v"  # the next one each time the colours are used up
WIDTH, HEIGHT = 3.5, 2.7  # inches, of one panel
DASHED = (0, (4, 3))
LEGEND_TITLE = (
    "bars: 95 %, of the difference to the dense images for scores that have one of their own\n"
    "the fuller a point, the surer it is on the Pareto front; grey: the front of the point estimates"
)
Bounds = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True)
class Point:
    """One cell in a plot.

    x: cost of dense over that of the cell.
    y: the score.
    text: label that distinguishes it within its series, or its own name.
    sure: probability that it is on the front.
    """

    cell: str
    x: Bounds
    y: Bounds
    text: str
    sure: float


@dataclass(frozen=True)
class Series:
    """Cells drawn alike. joined: they differ in one key only and are joined by a line."""

    name: str
    role: Literal["dense", "steps", "method", "sibling"]
    colour: str
    marker: str
    joined: bool
    points: tuple[Point, ...] = ()
    rows: tuple[Row, ...] = ()


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


def described(rows: Sequence[Row], cost: Cost) -> list[Panel]:
    """Return one panel per score and baseline, without empty ones."""
    known = [row for row in rows if _x(row, cost)]
    drawn, models = series(known), _baselines(known)
    panels = [_panel(models[m], drawn, score, m, cost) for score in headline(known) for m in models]
    return [panel for panel in panels if any(one.points for one in panel.series)]


def series(rows: Sequence[Row]) -> list[Series]:
    """Group rows into the dense runs, step reduction per baseline, the methods, and sibling models.

    Methods that vary the same keys form curves over the swept key; otherwise each method is a set of points.
    """
    methods = [row for row in rows if row.cell.role == "method"]
    same_axes = len({frozenset(row.cell.axes) for row in methods}) <= 1
    named = _group_by_swept_key(methods) if same_axes else _by_series(methods)
    dense = tuple(row for row in rows if row.cell.role == "dense")
    found = [Series("dense", "dense", INK, "D", False, rows=dense)]
    for name, group in _by_series([row for row in rows if row.cell.role == "steps"]).items():
        found.append(Series(name, "steps", MUTED, "o", True, rows=tuple(group)))
    for i, (name, group) in enumerate(named.items()):
        turn, colour = divmod(i, len(COLOURS))
        marker = MARKERS[turn % len(MARKERS)]
        found.append(Series(name, "method", COLOURS[colour], marker, same_axes, rows=tuple(group)))
    siblings = _by_series([row for row in rows if row.cell.role == "sibling"])
    for i, (name, group) in enumerate(siblings.items(), len(named)):
        found.append(Series(name, "sibling", COLOURS[i % len(COLOURS)], "*", False, rows=tuple(group)))
    return found


def _group_by_swept_key(methods: Sequence[Row]) -> dict[str, list[Row]]:
    """Group methods into curves: cells that differ only in the key with the most values."""
    values = {
        key: {str(row.cell.axes.get(key)) for row in methods} for row in methods for key in row.cell.axes
    }
    swept = max(values, key=lambda key: len(values[key]), default="")
    found: dict[str, list[Row]] = {}
    for row in methods:
        fixed = [f"{k.split('.')[-1]}={v}" for k, v in row.cell.axes.items() if k not in (swept, "method")]
        name = " ".join([row.cell.series, *fixed])
        unit = f" ({swept.split('.')[-1]})" if swept else ""
        found.setdefault(f"{name}{unit}", []).append(row)
    return found


def _by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.cell.series, []).append(row)
    return found


def _baselines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by baseline, keyed by the model's name ("" if there is only one)."""
    names = {row.cell.id: row.cell.label.removesuffix("dense").strip() for row in rows}
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(names.get(row.cell.dense, ""), []).append(row)
    return found


def _panel(rows: Sequence[Row], drawn: Sequence[Series], score: Score, model: str, cost: Cost) -> Panel:
    name, sign = score.name, 1 if score.better == "higher" else -1
    places = {row.cell.id: (x, y) for row in rows if (x := _x(row, cost)) and (y := _y(row, name))}
    ranked = [row.cell.id for row in rows if not row.failure and row.cell.role != "diagnosis"]
    ranked = [i for i in ranked if i in places]
    best = on_front([1 / places[i][0][0] for i in ranked], [sign * places[i][1][0] for i in ranked])
    front_ids = {i for i, is_best in zip(ranked, best, strict=True) if is_best}

    def point(row: Row, joined: bool) -> Point:
        at_front = float(row.cell.id in front_ids)
        sure = row.front.get(name, at_front) if cost == row.cost else at_front
        return Point(row.cell.id, *places[row.cell.id], _point_label(row, joined, model), sure)

    own = {row.cell.id for row in rows} & places.keys()
    found = [
        replace(one, points=tuple(point(row, one.joined) for row in one.rows if row.cell.id in own))
        for one in drawn
    ]
    front = [p for one in found for p in one.points if p.cell in front_ids]
    infinite = [r.cell.label for r in rows if name in r.scores and math.isinf(r.scores[name].value or 0)]
    ordered = tuple(sorted(front, key=lambda p: (-p.x[0], sign * p.y[0])))
    return Panel(score, cost, model, tuple(found), ordered, tuple(infinite))


def _point_label(row: Row, joined: bool, model: str) -> str:
    """Return the swept value for a point of a curve, else the cell's own name if it has one."""
    if joined:
        return str(list(row.cell.axes.values())[-1]) if row.cell.axes else ""
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


def pareto(rows: Sequence[Row], folder: Path, random_weights: bool) -> None:
    """Write pareto.png and .svg: one panel per score and baseline, or bars of speedup without any score."""
    timed = [row for row in rows if row.speedup is not None]
    panels = described(timed, rows[0].cost if rows else "time")
    if panels:
        with figure(*size(panels), random_weights) as made:
            draw(made, panels)
            save(made, folder / "pareto", "png", "svg")
        return
    with figure(WIDTH + 1, 0.8 + 0.25 * len(timed), random_weights) as made:
        _draw_bars(made.subplots(), timed)
        save(made, folder / "pareto", "png", "svg")


def _columns(panels: Sequence[Panel]) -> int:
    models = len({panel.model for panel in panels})
    return models if models > 1 else min(len(panels), 2)


def size(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the size of the figure in inches."""
    columns = _columns(panels)
    return WIDTH * columns + (columns == 1), HEIGHT * math.ceil(len(panels) / columns) + 0.3


def draw(made: Figure, panels: Sequence[Panel]) -> None:
    """Draw panels and a legend. In SVG, points are groups `cell-ID` and the front is the group `front`."""
    columns = _columns(panels)
    axes = list(made.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    drawn = [one for panel in panels for one in panel.series if one.points]
    shown = {"step reduction" if one.role == "steps" else one.name: one for one in drawn}
    made.legend(
        handles=[_legend_entry(name, one) for name, one in shown.items()],
        loc="outside lower center",
        ncols=3 if columns == 1 else 6,
        fontsize=7.5,
        frameon=False,
        title=LEGEND_TITLE,
    )


def _legend_entry(name: str, one: Series) -> Line2D:
    label = drawable(name).removeprefix("_")  # matplotlib hides labels with a leading underscore
    line = DASHED if one.role == "dense" else "-"
    return Line2D([], [], color=one.colour, marker=one.marker, markersize=4, linestyle=line, label=label)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    title = f"{panel.score.title}, {panel.model}" if panel.model else panel.score.title
    axis.set_title(drawable(title), color=INK)
    better = {"higher": "↗ better", "lower": "↘ better"}[panel.score.better]
    axis.annotate(better, (1, 1.02), xycoords="axes fraction", ha="right", va="bottom", color=MUTED, size=7.5)
    axis.set_xlabel(f"times cheaper than dense ({'FLOPs' if panel.cost == 'flops' else 'time'})")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    _draw_front(axis, panel.front)
    for one in panel.series:
        _draw_series(axis, one, panel.score)
    axis.margins(0.14, 0.2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")


def _draw_front(axis: Axes, front: Sequence[Point]) -> None:
    """Draw the front as a staircase."""
    path = [(p.x[0], p.y[0]) for p in front[:1]]
    for p, q in pairwise(front):
        path += [(p.x[0], q.y[0]), (q.x[0], q.y[0])]
    if len(path) > 1:
        (line,) = axis.plot(*zip(*path, strict=True), color=FAINT, linewidth=4, alpha=0.6, zorder=1)
        line.set_gid("front")


def _draw_series(axis: Axes, one: Series, score: Score) -> None:
    """Draw points with error bars and labels, joined in the order of the sweep."""
    for p in one.points:
        bars = [[[v - low], [high - v]] for v, low, high in (p.y, p.x)]
        axis.errorbar(p.x[0], p.y[0], *bars, fmt="none", ecolor=one.colour, elinewidth=0.7, alpha=0.6)
        if one.role == "dense":
            axis.axhline(p.y[0], color=INK, linewidth=0.7, linestyle=DASHED)
    if one.joined:
        axis.plot([p.x[0] for p in one.points], [p.y[0] for p in one.points], "-", color=one.colour)
    for p in one.points:
        look = {"marker": one.marker, "color": one.colour, "markersize": 4.2, "zorder": 3}
        axis.plot(p.x[0], p.y[0], **look, markerfacecolor="white")
        (mark,) = axis.plot(p.x[0], p.y[0], **look, markerfacecolor=to_rgba(one.colour, p.sure))
        mark.set_gid(f"cell-{p.cell}")
        _label_point(axis, one, p, score)


def _label_point(axis: Axes, one: Series, point: Point, score: Score) -> None:
    """Label a point: on the better side for methods, on the worse side for step reduction."""
    at, worse = (point.x[0], point.y[0]), one.role == "steps"
    if not one.joined:
        axis.annotate(drawable(point.text), at, (4, 3), textcoords="offset points", color=one.colour, size=6)
        return
    y = -9 if worse != (score.better == "lower") else 4
    place, side = ((-4, y), "right") if worse else ((4, y), "left")
    text = axis.annotate(
        drawable(point.text), at, place, textcoords="offset points", color=one.colour, size=7, ha=side
    )
    text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])


def _draw_bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Draw one bar of speedup per cell, with the FLOPs ratio as a tick."""
    for i, row in enumerate(rows):
        colour = bar_colour(row.cell.role)
        value, low, high = bounds(row.speedup) if row.speedup else (0.0, 0.0, 0.0)
        ends = [[value - low], [high - value]]
        axis.barh(i, value, xerr=ends, color=colour, height=0.55, error_kw={"elinewidth": 0.7})
        if row.flops_ratio:
            axis.plot([row.flops_ratio] * 2, [i - 0.4, i + 0.4], color=COLOURS[1], linewidth=2)
    axis.set_yticks(range(len(rows)), [drawable(row.cell.label) for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("speedup over dense (bar: time; orange tick: FLOPs)")

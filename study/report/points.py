"""Cells as points of a plot: where they stand, their intervals, what they are called."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke

from fovea.eval import Score
from fovea.eval.interval import Interval, Z
from fovea.study.analysis.row import Row
from fovea.study.report.curves import Curve, mark
from fovea.study.report.style import MUTED

Point = tuple[float, float]
Colour = tuple[float, float, float]


def draw(axis: Axes, curve: Curve, metric: str, model: str) -> None:
    """The points in the order of the sweep, each with its interval and what tells it apart. model: whose
    name they begin with."""
    rows, colour = curve.rows, curve.colour
    points = [place(row, metric) or (0.0, 0.0) for row in rows]
    for row, (x, y) in zip(rows, points, strict=True):
        axis.errorbar(
            x,
            y,
            _spread(row.scores[metric]),
            arms(row.speedup if row.cost == "time" else None),
            fmt="none",
            ecolor=colour,
            elinewidth=0.7,
            alpha=0.6,
        )
    if curve.joined:
        axis.plot([x for x, _ in points], [y for _, y in points], "-", color=colour)
    for row, point in zip(rows, points, strict=True):
        fill = _filled(row, metric, colour)
        axis.plot(*point, curve.marker, color=colour, markersize=4.2, markerfacecolor=fill)
    if not curve.joined:
        _called(axis, rows, points, colour, model)
        return
    worse = (
        colour == MUTED
    )  # labels stand on the better side of a method's points, the worse one of step reduction's
    for row, point in zip(rows, points, strict=True):
        rising = row.scores[metric].better == "lower"
        y = -9 if worse != rising else 4
        side = {"xytext": (-4, y), "ha": "right"} if worse else {"xytext": (4, y), "ha": "left"}
        text = axis.annotate(mark(row), point, textcoords="offset points", color=colour, size=7, **side)
        text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])


def _called(axis: Axes, rows: Sequence[Row], points: Sequence[Point], colour: str, model: str) -> None:
    """Cells that have a name of their own say it."""
    for row, point in zip(rows, points, strict=True):
        if not row.cell.label.startswith(row.cell.series):
            name = row.cell.label.removeprefix(model).strip()
            axis.annotate(name, point, (4, 3), textcoords="offset points", color=colour, size=6)


def _filled(row: Row, metric: str, colour: str) -> Colour:
    """Full where the cell is sure to be on the Pareto front, white where it is sure not to be."""
    share = row.front.get(metric, 1.0)
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _spread(score: Score) -> list[list[float]]:
    """95 % to either side: of the difference to dense where images are paired, else of the score itself."""
    if score.difference is not None:
        return arms(score.difference)
    return [[Z * (score.se or 0)]] * 2


def arms(interval: Interval | None) -> list[list[float]]:
    """Lengths of the error bar to either side."""
    if interval is None:
        return [[0.0], [0.0]]
    return [[interval.value - interval.low], [interval.high - interval.value]]


def place(row: Row, metric: str) -> Point | None:
    """Cheaper by how much, and the score; None where either is unknown or infinite."""
    score = row.scores.get(metric)
    if not row.cheaper or score is None or score.value is None or not math.isfinite(score.value):
        return None
    return row.cheaper, score.value

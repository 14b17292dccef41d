"""Plots of quality against cost: the drawing that pareto.png and the page share."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text

from fovea.eval import Score
from fovea.study.analysis.row import Row
from fovea.study.report.panels import Panel, Point, Series, bounds, panels_of
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, bar_colour, drawable, figure, save

WIDTH, HEIGHT = 3.5, 2.7  # inches, of one panel
LEGEND_HEIGHT = 0.75  # inches of the legend that `size` has room for
MAX_COLUMNS, MAX_ENTRY = 6, 60  # of the legend: columns at most, and characters of a name
DASHED = (0, (4, 3))
LEGEND_TITLE = (
    "bars: 95 %, of the difference to the dense images for scores that have one of their own\n"
    "the fuller a point, the surer it is on the Pareto front; grey: the front of the point estimates"
)


def pareto(rows: Sequence[Row], folder: Path, random_weights: bool) -> None:
    """Write pareto.png and .svg: one panel per score and baseline, or bars of speedup without any score."""
    panels = panels_of(rows, rows[0].cost)
    if panels:
        with figure(*size(panels), random_weights) as made:
            draw(made, panels)
            save(made, folder / "pareto", "png", "svg")
        return
    known = [row for row in rows if row.speedup or row.flops_ratio]
    with figure(WIDTH + 1, 0.8 + 0.25 * len(known), random_weights) as made:
        _draw_bars(made.subplots(), known)
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
    above = [_draw_panel(axis, panel) for axis, panel in zip(axes, panels, strict=False)]
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    drawn = [one for panel in panels for one in panel.series if one.points]
    shown = {"step reduction" if one.role == "steps" else one.name: one for one in drawn}
    _draw_legend(made, [_legend_entry(name, one) for name, one in shown.items()])
    if engine := made.get_layout_engine():
        engine.execute(made)
    for axis, (title, direction) in zip(axes, above, strict=False):
        _hide_covering_labels(axis)
        _fit_title(title, direction)


def _draw_legend(made: Figure, entries: Sequence[Line2D]) -> None:
    """Draw the legend below the panels, in as many columns as fit into the figure, which grows to hold it."""
    place: dict[str, Any] = {"loc": "outside lower center", "fontsize": 7.5, "frameon": False}
    for columns in range(min(MAX_COLUMNS, len(entries)), 0, -1):
        legend = made.legend(handles=entries, ncols=columns, title=LEGEND_TITLE, **place)
        box = legend.get_window_extent()
        if columns == 1 or box.width <= made.bbox.width:
            break
        legend.remove()
    more = max(0.0, box.height / made.dpi - LEGEND_HEIGHT)
    made.set_size_inches(made.get_figwidth(), made.get_figheight() + more)


def _hide_covering_labels(axis: Axes) -> None:
    """Hide the labels that would cover another one. Those on the front and of step reduction stay first."""
    kept = []
    for text in sorted(axis.texts, key=lambda text: -text.get_zorder()):
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in kept):
            text.set_visible(False)
        else:
            kept.append(box)


def _fit_title(title: Text, direction: Text) -> None:
    """Make a panel's title smaller if it would touch the direction at its right."""
    box, beside = title.get_window_extent(), direction.get_window_extent()
    room = beside.x0 - beside.height - box.x0
    if box.width > room:
        title.set_fontsize(float(title.get_fontsize()) * room / box.width)


def _legend_entry(name: str, one: Series) -> Line2D:
    label = drawable(shorten(name, MAX_ENTRY, placeholder=" …"))
    label = label.removeprefix("_")  # matplotlib hides labels with a leading underscore
    line = DASHED if one.role == "dense" else "-"
    return Line2D([], [], color=one.colour, marker=one.marker, markersize=4, linestyle=line, label=label)


def _draw_panel(axis: Axes, panel: Panel) -> tuple[Text, Text]:
    """Draw a panel; return its title and, right of it, the direction in which scores are better."""
    name = f"{panel.score.title}, {panel.model}" if panel.model else panel.score.title
    title = axis.set_title(drawable(name), color=INK)
    better = {"higher": "↗ better", "lower": "↘ better"}[panel.score.better]
    place: dict[str, Any] = {"xycoords": "axes fraction", "ha": "right", "va": "bottom"}
    direction = axis.annotate(better, (1, 1.02), **place, color=MUTED, size=7.5)
    axis.set_xlabel(f"times cheaper than dense ({'FLOPs' if panel.cost == 'flops' else 'time'})")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    _draw_front(axis, panel.front)
    front = {point.cell for point in panel.front}
    for one in filter(lambda one: one.points, panel.series):
        _draw_series(axis, one, panel.score, front)
    axis.margins(0.14, 0.2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")
    return title, direction


def _draw_front(axis: Axes, front: Sequence[Point]) -> None:
    """Draw the front as a staircase: at each cost the best score that is reached at this cost or a lower one.
    The corners between two points are those that both reach, not those that neither does."""
    if len(front) > 1:
        x, y = [p.x[0] for p in front], [p.y[0] for p in front]
        (line,) = axis.step(x, y, where="post", color=FAINT, linewidth=4, alpha=0.6, zorder=1)
        line.set_gid("front")


def _draw_series(axis: Axes, one: Series, score: Score, front: Collection[str]) -> None:
    """Draw points with error bars and labels, joined in the order of the sweep. front: ids of its cells."""
    (x, left, right), (y, low, high) = np.array([(p.x, p.y) for p in one.points]).transpose(1, 2, 0)
    bars = [y - low, high - y], [x - left, right - x]
    axis.errorbar(x, y, *bars, fmt="none", ecolor=one.colour, elinewidth=0.7, alpha=0.6)
    for value in y if one.role == "dense" else ():
        axis.axhline(value, color=INK, linewidth=0.7, linestyle=DASHED)
    if one.joined:
        axis.plot(x, y, "-", color=one.colour)
    for p in one.points:
        look = {"marker": one.marker, "color": one.colour, "markersize": 4.2, "zorder": 3}
        axis.plot(p.x[0], p.y[0], **look, markerfacecolor="white")
        (mark,) = axis.plot(p.x[0], p.y[0], **look, markerfacecolor=to_rgba(one.colour, p.front_probability))
        mark.set_gid(f"cell-{p.cell}")
        _label_point(axis, one, p, score).set_zorder(4 + (p.cell in front) + (one.role == "steps"))


def _label_point(axis: Axes, one: Series, point: Point, score: Score) -> Annotation:
    """Label a point: on the better side for methods, on the worse side for step reduction."""
    label, at, worse = drawable(point.text), (point.x[0], point.y[0]), one.role == "steps"
    if not one.joined:
        return axis.annotate(label, at, (4, 3), textcoords="offset points", color=one.colour, size=6)
    y = -9 if worse != (score.better == "lower") else 4
    place, side = ((-4, y), "right") if worse else ((4, y), "left")
    text = axis.annotate(label, at, place, textcoords="offset points", color=one.colour, size=7, ha=side)
    text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])
    return text


def _draw_bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Draw one bar of speedup per cell, with the FLOPs ratio as a tick."""
    for i, row in enumerate(rows):
        colour = bar_colour(row.cell.role)
        if row.speedup:
            value, low, high = bounds(row.speedup)
            ends = [[value - low], [high - value]]
            axis.barh(i, value, xerr=ends, color=colour, height=0.55, error_kw={"elinewidth": 0.7})
        if row.flops_ratio:
            axis.plot([row.flops_ratio] * 2, [i - 0.4, i + 0.4], color=COLOURS[1], linewidth=2)
    axis.set_yticks(range(len(rows)), [drawable(row.cell.label) for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("speedup over dense (bar: time; orange tick: FLOPs)")

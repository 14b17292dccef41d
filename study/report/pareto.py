"""Speedup against quality: each method's curve beside step reduction, with intervals."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fovea.eval import Score
from fovea.study.analysis.row import Row
from fovea.study.report.curves import Curve, curves
from fovea.study.report.points import arms, draw, place
from fovea.study.report.study_table import headline
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, figure, save

WIDTH, HEIGHT = 3.5, 2.7  # of one panel, inches
BARS = (
    "bars: 95 %, of the difference to the dense images for scores that have one of their own\n"
    "the fuller a point, the surer it is on the Pareto front"
)


def pareto(rows: Sequence[Row], folder: Path, random_weights: bool) -> None:
    """pareto.png and .svg: one panel per quality metric, of each baseline where there are several; speedup
    alone where there is no metric."""
    timed = [row for row in rows if row.speedup is not None]
    scores = [s for s in headline(rows) if any(place(row, s.name) for row in timed)]
    models, drawn = _baselines(timed), curves(timed)
    columns = len(models) if len(models) > 1 else min(len(scores), 2) or 1
    lines = math.ceil(len(scores) * len(models) / columns) or 1
    with figure(WIDTH * columns + (columns == 1), HEIGHT * lines + 0.3, random_weights) as made:
        axes = list(made.subplots(lines, columns, squeeze=False).flat)
        for axis, (score, model) in zip(axes, product(scores, models), strict=False):
            _panel(axis, models[model], drawn, score, model)
        for axis in axes[len(scores) * len(models) :]:
            axis.set_axis_off()
        if scores:
            made.legend(
                handles=_legend(drawn),
                loc="outside lower center",
                ncols=3 if columns == 1 else 6,
                fontsize=7.5,
                frameon=False,
                title=BARS,
            )
        else:
            axes[0].set_axis_on()
            _bars(axes[0], timed)
        save(made, folder / "pareto", "png", "svg")


def _baselines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The model's name where several are swept, to the rows that are compared with its baseline."""
    names = {row.cell.id: row.cell.label.removesuffix("dense").strip() for row in rows}
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(names.get(row.cell.dense, ""), []).append(row)
    return found


def _legend(drawn: Sequence[Curve]) -> list[Line2D]:
    dense = Line2D([], [], color=INK, marker="D", markersize=4, linestyle=(0, (4, 3)), label="dense")
    named = {"step reduction" if c.colour == MUTED else c.name: c for c in drawn}
    lines = [
        Line2D([], [], color=c.colour, marker=c.marker, markersize=4, label=name) for name, c in named.items()
    ]
    return [dense, *lines]


def _panel(axis: Axes, rows: Sequence[Row], drawn: Sequence[Curve], score: Score, model: str) -> None:
    axis.set_title(f"{score.title}, {model}" if model else score.title, color=INK)
    better = {"higher": "↗ better", "lower": "↘ better"}[score.better]
    axis.annotate(better, (1, 1.02), xycoords="axes fraction", ha="right", va="bottom", color=MUTED, size=7.5)
    axis.set_xlabel(f"times cheaper than dense ({'FLOPs' if rows[0].cost == 'flops' else 'time'})")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    for row in rows:
        point = place(row, score.name)
        if row.cell.role == "dense" and point:
            axis.axhline(point[1], color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
            axis.plot(*point, "D", color=INK, markersize=4, zorder=3)
    for curve in drawn:
        known = [row for row in curve.rows if row in rows and place(row, score.name)]
        draw(axis, curve._replace(rows=known), score.name, model)
    axis.margins(0.14, 0.2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Without quality there is only speed: one bar per cell, the ratio of FLOPs as a tick on it."""
    for i, row in enumerate(rows):
        colour = {"dense": INK, "steps": MUTED, "diagnosis": MUTED}.get(row.cell.role, COLOURS[0])
        value = row.speedup.value if row.speedup else 0.0
        axis.barh(i, value, xerr=arms(row.speedup), color=colour, height=0.55, error_kw={"elinewidth": 0.7})
        if row.flops_ratio:
            axis.plot([row.flops_ratio] * 2, [i - 0.4, i + 0.4], color=COLOURS[1], linewidth=2)
    axis.set_yticks(range(len(rows)), [row.cell.label for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("speedup over dense (bar: time; orange tick: FLOPs)")

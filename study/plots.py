"""Speedup against quality: each method's curve beside step reduction, with intervals."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from eval import Score
from eval.interval import Interval
from study.curves import Curve, curves, mark
from study.row import Row
from study.style import COLOURS, FAINT, INK, MUTED, figure, save
from study.table import headline

NAMES = {
    "psnr": "PSNR to dense (dB)",
    "ssim": "SSIM to dense",
    "fd": "Fréchet distance",
    "clip_score": "CLIP score",
}
WIDTH, HEIGHT = 3.5, 2.7  # of one panel, inches
Z = 1.96  # standard errors to a 95 % interval
BARS = (
    "bars: 95 %, of the difference to the dense images for scores that have one of their own\n"
    "the fuller a point, the surer it is on the Pareto front"
)
Point = tuple[float, float]
Colour = tuple[float, float, float]


def pareto(rows: Sequence[Row], folder: Path, random_weights: bool) -> None:
    """pareto.png and .svg: one panel per quality metric; speedup alone where there is none."""
    timed = [row for row in rows if row.speedup is not None]
    scores = [s for s in headline(rows) if any(_point(row, s.name) for row in timed)]
    columns = min(len(scores), 2) or 1
    lines = math.ceil(len(scores) / columns) or 1
    with figure(WIDTH * columns, HEIGHT * lines + 0.3, random_weights) as made:
        axes = list(made.subplots(lines, columns, squeeze=False).flat)
        for axis, score in zip(axes, scores, strict=False):
            _panel(axis, timed, score)
        for axis in axes[len(scores) :]:
            axis.set_axis_off()
        if scores:
            named = [
                Line2D([], [], color=c.colour, marker=c.marker, markersize=4, label=c.name)
                for c in curves(timed)
            ]
            dense = Line2D([], [], color=INK, marker="D", markersize=4, linestyle=(0, (4, 3)), label="dense")
            made.legend(
                handles=[dense, *named],
                loc="outside lower center",
                ncols=min(6, 4 + (len(named) < 12)),
                fontsize=7.5,
                frameon=False,
                title=BARS,
            )
        else:
            axes[0].set_axis_on()
            _bars(axes[0], timed)
        save(made, folder / "pareto", "png", "svg")


def _panel(axis: Axes, rows: Sequence[Row], score: Score) -> None:
    axis.set_title(title(score.name), color=INK)
    better = {"higher": "↗ better", "lower": "↘ better"}[score.better]
    axis.annotate(better, (1, 1.02), xycoords="axes fraction", ha="right", va="bottom", color=MUTED, size=7.5)
    axis.set_xlabel(f"times cheaper than dense ({'FLOPs' if rows[0].cost == 'flops' else 'time'})")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    for row in rows:
        point = _point(row, score.name)
        if row.cell.role == "dense" and point:
            axis.axhline(point[1], color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
            axis.plot(*point, "D", color=INK, markersize=4, zorder=3)
    for curve in curves(rows):
        known = [row for row in curve.rows if _point(row, score.name)]
        _curve(axis, curve._replace(rows=known), score.name)
    axis.margins(0.14, 0.2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")


def _curve(axis: Axes, curve: Curve, metric: str) -> None:
    """The points in the order of the sweep, each with its interval and what tells it apart."""
    rows, colour = curve.rows, curve.colour
    points = [_point(row, metric) or (0.0, 0.0) for row in rows]
    for row, (x, y) in zip(rows, points, strict=True):
        axis.errorbar(
            x,
            y,
            _spread(row.scores[metric]),
            _arms(row.speedup if row.cost == "time" else None),
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
        return
    worse = (
        colour == MUTED
    )  # labels stand on the better side of a method's points, the worse one of step reduction's
    for row, point in zip(rows, points, strict=True):
        rising = row.scores[metric].better == "lower"
        y = -9 if worse != rising else 4
        place = {"xytext": (-4, y), "ha": "right"} if worse else {"xytext": (4, y), "ha": "left"}
        text = axis.annotate(mark(row), point, textcoords="offset points", color=colour, size=7, **place)
        text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])


def _filled(row: Row, metric: str, colour: str) -> Colour:
    """Full where the cell is sure to be on the Pareto front, white where it is sure not to be."""
    share = row.front.get(metric, 1.0)
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _spread(score: Score) -> list[list[float]]:
    """95 % to either side: of the difference to dense where images are paired, else of the score itself."""
    if score.difference is not None:
        return _arms(score.difference)
    return [[Z * (score.se or 0)]] * 2


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Without quality there is only speed: one bar per cell, the ratio of FLOPs as a tick on it."""
    for i, row in enumerate(rows):
        colour = {"dense": INK, "steps": MUTED}.get(row.cell.role, COLOURS[0])
        value = row.speedup.value if row.speedup else 0.0
        axis.barh(i, value, xerr=_arms(row.speedup), color=colour, height=0.55, error_kw={"elinewidth": 0.7})
        if row.flops_ratio:
            axis.plot([row.flops_ratio] * 2, [i - 0.4, i + 0.4], color=COLOURS[1], linewidth=2)
    axis.set_yticks(range(len(rows)), [row.cell.label for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("speedup over dense (bar: time; orange tick: FLOPs)")


def _arms(interval: Interval | None) -> list[list[float]]:
    """Lengths of the error bar to either side."""
    if interval is None:
        return [[0.0], [0.0]]
    return [[interval.value - interval.low], [interval.high - interval.value]]


def title(metric: str) -> str:
    """psnr -> PSNR to dense (dB); fd[emoji] -> Fréchet distance [emoji]."""
    name, bracket, rest = metric.partition("[")
    return f"{NAMES.get(name, name)} {bracket}{rest}".strip()


def _point(row: Row, metric: str) -> Point | None:
    score = row.scores.get(metric)
    if not row.cheaper or score is None or score.value is None or not math.isfinite(score.value):
        return None
    return row.cheaper, score.value

"""Speedup against quality: each method's curve beside step reduction, with intervals."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from eval import Score
from study.row import Row
from study.style import COLOURS, FAINT, INK, MUTED, figure, save
from study.table import headline

NAMES = {
    "psnr": "PSNR to dense (dB)",
    "ssim": "SSIM to dense",
    "fd": "Fréchet distance",
    "clip_score": "CLIP score",
}
WIDTH, HEIGHT = 3.3, 2.9  # of one panel, inches
Z = 1.96  # standard errors to a 95 % interval


def pareto(rows: Sequence[Row], folder: Path, random_weights: bool) -> None:
    """pareto.png and .svg: one panel per quality metric; speedup alone where there is none."""
    timed = [row for row in rows if row.speedup is not None]
    scores = [s for s in headline(rows) if any(_value(row, s.name) is not None for row in timed)]
    columns = min(len(scores), 2) or 1
    lines = math.ceil(len(scores) / columns) or 1
    with figure(WIDTH * columns, HEIGHT * lines, random_weights) as made:
        axes = made.subplots(lines, columns, squeeze=False).flat
        for axis, score in zip(axes, scores, strict=False):
            _panel(axis, timed, score)
        for axis in list(axes)[len(scores) :]:
            axis.set_axis_off()
        if not scores:
            _bars(made.axes[0], timed)
        save(made, folder / "pareto", "png", "svg")


def _panel(axis: Axes, rows: Sequence[Row], score: Score) -> None:
    axis.set_title(f"{title(score.name)}  ({score.better} is better)", color=INK)
    axis.set_xlabel("speedup over dense (time)")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    dense = [row for row in rows if row.cell.role == "dense"]
    for row in dense:
        value = _value(row, score.name)
        if value is not None:
            axis.axhline(value, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
            axis.plot(row.speedup.value, value, "D", color=INK, markersize=4)
            axis.annotate(
                "dense", (row.speedup.value, value), (5, 4), textcoords="offset points", color=INK, size=7.5
            )
    for colour, (name, group) in zip((MUTED, *COLOURS * 9), series(rows).items(), strict=False):
        _curve(axis, name, group, score.name, colour)
    axis.margins(0.12, 0.16)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")


def _curve(axis: Axes, name: str, rows: Sequence[Row], metric: str, colour: str) -> None:
    points = sorted((r for r in rows if _value(r, metric) is not None), key=lambda r: r.speedup.value)
    if not points:
        return
    x, y = [r.speedup.value for r in points], [_value(r, metric) for r in points]
    left_right = [
        [r.speedup.value - r.speedup.low for r in points],
        [r.speedup.high - r.speedup.value for r in points],
    ]
    spread = [Z * (r.scores[metric].se or 0) for r in points]
    axis.errorbar(x, y, spread, left_right, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.55)
    axis.plot(x, y, "o-", color=colour, markersize=3.6, label=name)
    for row, a, b in zip(points, x, y, strict=True):
        axis.annotate(mark(row), (a, b), (4, 4), textcoords="offset points", color=colour, size=7)
    axis.annotate(
        name, (x[-1], y[-1]), (4, -10), textcoords="offset points", color=colour, size=8, weight="bold"
    )


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Without quality there is only speed: one bar per cell, the ratio of FLOPs as a tick on it."""
    for i, row in enumerate(rows):
        colour = {"dense": INK, "steps": MUTED}.get(row.cell.role, COLOURS[0])
        bounds = [[row.speedup.value - row.speedup.low], [row.speedup.high - row.speedup.value]]
        axis.barh(
            i,
            row.speedup.value,
            xerr=bounds,
            color=colour,
            height=0.6,
            error_kw={"ecolor": INK, "elinewidth": 0.7},
        )
        if row.flops_ratio:
            axis.plot([row.flops_ratio] * 2, [i - 0.42, i + 0.42], color="#D55E00", linewidth=2)
    axis.set_yticks(range(len(rows)), [row.cell.label for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("speedup over dense (bar: time; tick: FLOPs)")


def series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Step reduction, and the methods: cells that differ only in the key with most values make one curve."""
    methods = [row for row in rows if row.cell.role == "method"]
    values = {
        key: {str(row.cell.axes.get(key)) for row in methods} for row in methods for key in row.cell.axes
    }
    swept = max(values, key=lambda key: len(values[key]), default="")
    found: dict[str, list[Row]] = {"step reduction": [row for row in rows if row.cell.role == "steps"]}
    for row in methods:
        fixed = [f"{k.split('.')[-1]}={v}" for k, v in row.cell.axes.items() if k not in (swept, "method")]
        found.setdefault(" ".join([row.cell.label.split(" ")[0], *fixed]), []).append(row)
    return found


def mark(row: Row) -> str:
    """What tells a point from the others of its curve: a ratio, a number of steps."""
    return str(list(row.cell.axes.values())[-1]) if row.cell.axes else ""


def title(metric: str) -> str:
    """psnr -> PSNR to dense (dB); fd[emoji] -> Fréchet distance [emoji]."""
    name, bracket, rest = metric.partition("[")
    return f"{NAMES.get(name, name)} {bracket}{rest}".strip()


def _value(row: Row, metric: str) -> float | None:
    score = row.scores.get(metric)
    return score.value if score and score.value is not None and math.isfinite(score.value) else None

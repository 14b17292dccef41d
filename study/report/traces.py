"""departure.png: when and where a method departs from the dense trajectory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import SubFigure

from fovea.study.plan.plan import Plan
from fovea.study.report.direct import End, by_sigma, name_ends
from fovea.study.report.panels import TITLE, beside, over, picture, spread
from fovea.study.report.style import figure, save
from fovea.study.report.traced import Traced, choice, chosen, look
from fovea.study.run.trace import Trace
from fovea.study.store import Store

MAPS, STEPS = 4, 8  # cells and steps whose error is drawn over the image
WIDTH, LINES, NAMES = 9.5, 3.0, 1.2  # inches: of the figure; height of the axis; cells' names
WHEN = """\
When it departs from the dense trajectory: the image that a step points to, less the dense one at the same σ;
root mean square over that of the dense latent, mean over tokens and {} images"""
WHERE = "Where: the same token by token, at some steps of one image"
SMALLEST = 1e-3  # errors drawn at least: what is kept of them is float16


def departure(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """departure.png and .svg. False, and nothing written, where no method departs from a known trajectory."""
    every = [one for one in traces if one.cell.role != "dense" and one.departure().any()]
    cells = chosen([one.cell for one in every], store)
    shown = [one for one in every if one.cell in cells]
    if not shown:
        return False
    key = next(iter(shown[0].traces))
    close = [one for one in shown if one.cell in chosen(cells, store, MAPS) and key in one.traces]
    rows, columns = shown[0].traces[key].grid
    below = ((WIDTH - NAMES - 0.6) / (STEPS + 1) * rows / columns + 0.13) * len(close) + 0.45
    with figure(WIDTH, LINES + 0.75 + below, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[LINES + 0.75, below]).flat
        images = max(len(one.traces) for one in shown)
        top.suptitle(WHEN.format(images) + choice(shown, every), **TITLE)
        _lines(top, shown)
        bottom.suptitle(WHERE, **TITLE)
        _maps(bottom, store, close, key)
        save(made, folder / "departure", "png", "svg")
    return True


def _lines(panel: SubFigure, shown: Sequence[Traced]) -> None:
    axis, looks, ends = panel.subplots(), look([one.cell for one in shown]), []
    for one in shown:
        error = one.departure().mean(0)
        error = np.where(error > 0, np.maximum(error, SMALLEST), np.nan)  # what has not departed has no line
        sigma = np.array([*one.sigma, 0])
        back = (
            np.flatnonzero(np.diff(sigma) > 0) + 1
        )  # where RALU returns to more noise, the line begins anew
        axis.plot(np.insert(sigma, back, np.nan), np.insert(error, back, np.nan), **looks[one.cell.id])
        ends.append(End(0.0, float(error[-1]), one.cell.label, looks[one.cell.id]["color"]))
    axis.set_yscale("log")
    axis.set_ylabel("relative error")
    by_sigma(axis)
    axis.set_ylim(*axis.get_ylim())
    name_ends(axis, [end for end in ends if np.isfinite(end.y)], LINES)


def _maps(panel: SubFigure, store: Store, shown: Sequence[Traced], key: str) -> None:
    axes = panel.subplots(len(shown), STEPS + 1, squeeze=False)
    low, high = limits([one.traces[key] for one in shown])
    for line, one in zip(axes, shown, strict=True):
        for axis in line:
            axis.set_axis_off()
        picture(line[0], store, one.cell.id, key)
        beside(line[0], one.cell.label)
        trace = one.traces[key]
        error = trace.over_image(np.zeros_like(trace.score) if trace.error is None else trace.error)
        steps = spread(np.arange(len(trace.sigma)), STEPS)
        for axis, step in zip(line[1:], steps, strict=False):
            axis.imshow(np.maximum(error[step], low), cmap="magma", norm=LogNorm(low, high))
            over(axis, f"{step + 1}: σ {trace.sigma[step]:.2f}")
    bar = panel.colorbar(
        ScalarMappable(LogNorm(low, high), "magma"), ax=axes, shrink=0.8, aspect=30, pad=0.01
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)


def limits(traces: Sequence[Trace]) -> tuple[float, float]:
    """Of a scale that all of them share: the middle 96 % of what is not 0."""
    every = np.concatenate([t.error[t.error > 0] for t in traces if t.error is not None])
    low, high = np.quantile(every, [0.02, 0.98])
    low = max(low, SMALLEST)
    return low, max(high, 2 * low)

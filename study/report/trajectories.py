"""Figures of traced trajectories.

departure.png shows when and where methods depart from the dense trajectory; scores.png shows the score maps
of the dense run and how well each step's ranking predicts the next one's.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import SubFigure
from matplotlib.ticker import LogFormatter

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.style import (
    COLOURS,
    INK,
    MUTED,
    TITLE,
    End,
    drawable,
    figure,
    image_grid,
    name_ends,
    picture,
    row_name,
    save,
    set_sigma_axis,
    small_title,
    spread,
)
from fovea.study.report.traces import Traced, chosen_traced, selection_note
from fovea.study.run.trace import Trace
from fovea.study.store import Store

DASHES = ("-", (0, (4, 2)), (0, (1, 1)))
WIDTH, LINES, NAMES = 9.5, 3.0, 1.2  # inches: width of figures, height of line plots, width of cell names
MAX_MAP_CELLS, STEPS = 4, 8  # cells and steps of the error maps, at most
PROMPTS, MAPS = 2, 9  # images and steps of the score maps, at most
SMALLEST = 1e-3  # smaller errors are drawn at this value, as traces are stored in float16
WHEN = """\
When it departs from the dense trajectory: the image that a step points to, less the dense one at the same σ;
root mean square over that of the dense latent, mean over tokens and {}"""
WHERE = "Where: the same token by token, at some steps of one image"
SCORES = "Score maps of {}: how each token's velocity spreads over its channels (a scale per step)"
RANKS = """\
Rank correlation (Spearman) of each step's scores with those of the step before; mean over {}, and the
range for dense. Tokens left out keep velocity and score: only the dense line shows how steady a ranking is"""


def images(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"


def line_styles(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return line styles by cell id.

    Each series has its own colour and dashes, step reduction is grey. The settings of a series fade from the
    first to the last.
    """
    series = list(dict.fromkeys(cell.series for cell in cells if cell.role == "method"))
    found = {}
    for cell in cells:
        turn, colour = divmod(series.index(cell.series), len(COLOURS)) if cell.role == "method" else (0, -1)
        alike = [other.id for other in cells if (other.role, other.series) == (cell.role, cell.series)]
        pale = 0.55 * alike.index(cell.id) / max(len(alike) - 1, 1)
        red, green, blue = (
            1 - (1 - part) * (1 - pale) for part in to_rgb(MUTED if colour < 0 else COLOURS[colour])
        )
        found[cell.id] = {"color": (red, green, blue), "linestyle": DASHES[turn % 3], "linewidth": 1.1}
    return found


def departure(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """Write departure.png and .svg. Return False, without writing, if no departure is known."""
    candidates = [one for one in traces if one.cell.role != "dense" and one.departure().any()]
    shown = chosen_traced(candidates, store)
    if not shown:
        return False
    key = next(iter(shown[0].traces))
    mapped = [one for one in chosen_traced(shown, store, MAX_MAP_CELLS) if key in one.traces]
    rows, columns = shown[0].traces[key].grid
    below = ((WIDTH - NAMES - 0.6) / (STEPS + 1) * rows / columns + 0.13) * len(mapped) + 0.45
    with figure(WIDTH, LINES + 0.75 + below, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[LINES + 0.75, below]).flat
        most = max(len(one.traces) for one in shown)
        top.suptitle(WHEN.format(images(most)) + selection_note(shown, candidates), **TITLE)
        _draw_departures(top, shown)
        bottom.suptitle(WHERE, **TITLE)
        _draw_error_maps(bottom, store, mapped, key)
        save(made, folder / "departure", "png", "svg")
    return True


class PlainLogLabels(LogFormatter):
    """Labels of a log axis in plain digits; matplotlib's own need math text, which the style disables."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _draw_departures(panel: SubFigure, shown: Sequence[Traced]) -> None:
    axis, styles, ends = panel.subplots(), line_styles([one.cell for one in shown]), []
    for one in shown:
        style = styles[one.cell.id]
        error = one.departure().mean(0)
        error = np.where(error > 0, np.maximum(error, SMALLEST), np.nan)  # no line where there is no error
        sigma = np.array([*one.sigma, 0])
        rises = np.flatnonzero(np.diff(sigma) > 0) + 1  # break the line where RALU returns to more noise
        axis.plot(np.insert(sigma, rises, np.nan), np.insert(error, rises, np.nan), **style)
        ends.append(End(0.0, float(error[-1]), one.cell.label, style["color"]))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(PlainLogLabels())
    axis.set_ylabel("relative error")
    set_sigma_axis(axis)
    axis.set_ylim(*axis.get_ylim())
    name_ends(axis, [end for end in ends if np.isfinite(end.y)], LINES)


def _draw_error_maps(panel: SubFigure, store: Store, shown: Sequence[Traced], key: str) -> None:
    axes = image_grid(panel, len(shown), STEPS + 1)
    low, high = limits([one.traces[key] for one in shown])
    for line, one in zip(axes, shown, strict=True):
        picture(line[0], store, one.cell.id, key)
        row_name(line[0], one.cell.label)
        trace = one.traces[key]
        error = trace.over_image(np.zeros_like(trace.score) if trace.error is None else trace.error)
        steps = spread(np.arange(len(trace.sigma)), STEPS)
        for axis, step in zip(line[1:], steps, strict=False):
            axis.imshow(np.maximum(error[step], low), cmap="magma", norm=LogNorm(low, high))
            small_title(axis, f"{step + 1}: σ {trace.sigma[step]:.2f}")
    bar = panel.colorbar(
        ScalarMappable(LogNorm(low, high), "magma"), ax=axes[:, -1], shrink=0.8, aspect=30, pad=0.01
    )
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(labelsize=7)


def limits(traces: Sequence[Trace]) -> tuple[float, float]:
    """Return the limits of a shared colour scale: the middle 96 % of the errors above 0.

    If all errors are 0, as when only the last step departs, the scale starts at the smallest drawn error.
    """
    errors = np.concatenate([t.error[t.error > 0] for t in traces if t.error is not None])
    low, high = np.quantile(errors, [0.02, 0.98]) if errors.size else (SMALLEST, SMALLEST)
    low = max(low, SMALLEST)
    return low, max(high, 2 * low)


def score_maps(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """Write scores.png and .svg. Return False, without writing, if no dense trace has two steps."""
    baselines = [one for one in traces if one.cell.role == "dense" and len(one.sigma) > 1]
    if not baselines:
        return False
    dense = baselines[0]
    keys = list(dense.traces)[:PROMPTS]
    rows, columns = dense.traces[keys[0]].grid
    steps = spread(np.arange(len(dense.sigma)), MAPS)
    above = (WIDTH - 0.3) / (len(steps) + 1) * rows / columns * len(keys) + 0.55
    with figure(WIDTH, above + LINES + 0.75, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[above, LINES + 0.75]).flat
        top.suptitle(
            SCORES.format(drawable(dense.cell.label) if len(baselines) > 1 else "the dense run"), **TITLE
        )
        _draw_scores(top, store, dense, keys, steps)
        draw_rank_correlations(bottom, store, baselines, [one for one in traces if _ranks_tokens(one)])
        save(made, folder / "scores", "png", "svg")
    return True


def _ranks_tokens(one: Traced) -> bool:
    """True for step reduction and for methods that choose among tokens at every sparse step.

    Others have no comparable ranking: a cache repeats or forecasts its scores, and RALU changes the tokens.
    """
    if one.cell.off or len(one.sigma) < 2 or one.cell.role == "dense":
        return False
    traces = one.traces.values()
    chooses = any(bool(np.ptp(t.had, axis=1).any()) for t in traces)
    every_step = all(t.level is None and bool(t.had.any(1).all()) for t in traces)
    return one.cell.role == "steps" or (chooses and every_step)


def _draw_scores(
    panel: SubFigure, store: Store, dense: Traced, keys: Sequence[str], steps: Sequence[int]
) -> None:
    axes = image_grid(panel, len(keys), len(steps) + 1)
    for line, key in zip(axes, keys, strict=True):
        picture(line[0], store, dense.cell.id, key)
        trace = dense.traces[key]
        for axis, scores in zip(line[1:], trace.over_image(trace.score)[steps], strict=True):
            low, high = np.quantile(scores, [0.02, 0.98])
            axis.imshow(scores, cmap="viridis", vmin=low, vmax=high)
    for axis, step in zip(axes[0][1:], steps, strict=True):
        small_title(axis, f"step {step + 1}\nσ {dense.sigma[step]:.2f}")


def draw_rank_correlations(
    panel: SubFigure, store: Store, baselines: Sequence[Traced], others: Sequence[Traced]
) -> None:
    drawn, lowest = chosen_traced(others, store), 0.0
    panel.suptitle(RANKS.format(images(len(baselines[0].traces))) + selection_note(drawn, others), **TITLE)
    axis, styles = panel.subplots(), line_styles([one.cell for one in drawn])
    for dense, dashes in zip(baselines, cycle(DASHES), strict=False):
        values = dense.continuity()[:, 1:]
        lowest = min(lowest, values.min())
        axis.fill_between(dense.sigma[1:], values.min(0), values.max(0), color=INK, alpha=0.13, linewidth=0)
        styles[dense.cell.id] = {"color": INK, "linewidth": 2.2, "linestyle": dashes}
    axis.axhline(0, color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)))
    axis.annotate("a random ranking: 0", (0.5, 0), va="bottom", ha="center", color=MUTED, size=7)
    ends = []
    for one in [*drawn, *baselines]:
        mean, style = one.continuity().mean(0), styles[one.cell.id]
        lowest = np.nanmin([lowest, *mean])
        axis.plot(one.sigma, mean, **style)
        ends.append(End(float(one.sigma[-1]), float(mean[-1]), one.cell.label, style["color"]))
    axis.set_ylim(min(-0.05, lowest - 0.02), 1.02)
    set_sigma_axis(axis)
    axis.set_ylabel("rank correlation")
    name_ends(axis, ends, LINES)

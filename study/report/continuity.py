"""scores.png: the score maps of the dense run, and how well each step's ranking foretells the next one's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import SubFigure

from fovea.study.plan.plan import Plan
from fovea.study.report.direct import End, by_sigma, name_ends
from fovea.study.report.panels import TITLE, over, picture, spread
from fovea.study.report.style import INK, MUTED, figure, save
from fovea.study.report.traced import Traced, choice, chosen, look
from fovea.study.store import Store

PROMPTS, STEPS = 2, 9  # of the score maps
WIDTH, LINES = 9.5, 2.9  # inches: of the figure; height of the axis
MAPS = "Score maps of the dense run: how each token's velocity spreads over its channels (a scale per step)"
RANKS = """\
Rank correlation (Spearman) of each step's scores with those of the step before; mean over {} images, and the
range for dense. Tokens left out keep velocity and score: only the dense line shows how steady a ranking is"""


def continuity(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """scores.png and .svg. False, and nothing written, without a dense trace of two steps."""
    dense = next((one for one in traces if one.cell.role == "dense" and len(one.sigma) > 1), None)
    if dense is None:
        return False
    keys = list(dense.traces)[:PROMPTS]
    rows, columns = dense.traces[keys[0]].grid
    steps = spread(np.arange(len(dense.sigma)), STEPS)
    above = (WIDTH - 0.3) / (len(steps) + 1) * rows / columns * len(keys) + 0.55
    with figure(WIDTH, above + LINES + 0.75, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[above, LINES + 0.75]).flat
        top.suptitle(MAPS, **TITLE)
        _maps(top, store, dense, keys, steps)
        _lines(bottom, store, dense, [one for one in traces if _shown(one)])
        save(made, folder / "scores", "png", "svg")
    return True


def _shown(one: Traced) -> bool:
    """Step reduction, and what chooses among tokens at every sparse step: a cache repeats or forecasts its
    scores, and RALU changes the tokens."""
    if one.cell.off or len(one.sigma) < 2 or one.cell.role == "dense":
        return False
    traces = one.traces.values()
    chooses = any(bool(np.ptp(t.had, axis=1).any()) for t in traces)
    same = all(t.level is None and bool(t.had.any(1).all()) for t in traces)
    return one.cell.role == "steps" or (chooses and same)


def _maps(panel: SubFigure, store: Store, dense: Traced, keys: Sequence[str], steps: Sequence[int]) -> None:
    axes = panel.subplots(len(keys), len(steps) + 1, squeeze=False)
    for line, key in zip(axes, keys, strict=True):
        picture(line[0], store, dense.cell.id, key)
        trace = dense.traces[key]
        for axis, scores in zip(line[1:], trace.over_image(trace.score)[steps], strict=True):
            low, high = np.quantile(scores, [0.02, 0.98])
            axis.imshow(scores, cmap="viridis", vmin=low, vmax=high)
            axis.set_axis_off()
    for axis, step in zip(axes[0][1:], steps, strict=True):
        over(axis, f"step {step + 1}\nσ {dense.sigma[step]:.2f}")


def _lines(panel: SubFigure, store: Store, dense: Traced, others: Sequence[Traced]) -> None:
    cells = [one.cell for one in others]
    drawn = chosen(cells, store)
    panel.suptitle(RANKS.format(len(dense.traces)) + choice(drawn, cells), **TITLE)
    axis, looks = panel.subplots(), look(drawn)
    values = dense.continuity()[:, 1:]
    axis.fill_between(dense.sigma[1:], values.min(0), values.max(0), color=INK, alpha=0.13, linewidth=0)
    axis.axhline(0, color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)))
    axis.annotate("a random ranking: 0", (0.5, 0), va="bottom", ha="center", color=MUTED, size=7)
    looks[dense.cell.id] = {"color": INK, "linewidth": 2.2}
    ends = []
    for one in [*(one for one in others if one.cell in drawn), dense]:
        mean = one.continuity().mean(0)
        axis.plot(one.sigma, mean, **looks[one.cell.id])
        ends.append(End(float(one.sigma[-1]), float(mean[-1]), one.cell.label, looks[one.cell.id]["color"]))
    axis.set_ylim(min(-0.05, values.min() - 0.02), 1.02)
    by_sigma(axis)
    axis.set_ylabel("rank correlation")
    name_ends(axis, ends, LINES)

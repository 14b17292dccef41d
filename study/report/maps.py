"""Focus maps: which tokens ran, in total and step by step, over the image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import SubFigure

from fovea.study.picture import pixels
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.panels import TITLE, beside, enlarged, faded, folded, over, picture, spread
from fovea.study.report.style import INK, figure, save
from fovea.study.report.traced import choice, chosen
from fovea.study.store import Store

FIRST = 16  # samples that are looked at
PROMPTS, STEPS, LEAST = 3, 10, 5  # shown at most; columns at least, so that few stand together
WIDTH, NAMES = 9.5, 1.25  # inches, of the figure and of the cells' names beside their steps
HEAT = colormaps["viridis"]
Maps = dict[str, np.ndarray]


def maps(plan: Plan, store: Store) -> dict[str, Maps]:
    """Cell id to key to (steps, rows, columns): the share of the model that each token had, of
    the first images. Only of cells where tokens differ: a cache of whole steps has nothing to show."""
    found = {}
    for cell in plan.cells:
        shares = store.focus(cell.id, [s.key for s in plan.samples[:FIRST]])
        differ = {key: had for key, had in shares.items() if np.ptp(had, axis=(1, 2)).any()}
        found |= {cell.id: differ} if differ else {}
    return found


def focus(plan: Plan, store: Store, found: Mapping[str, Maps], folder: Path) -> bool:
    """focus.png and .svg. False, and nothing written, where every cell ran every token."""
    every = [cell for cell in plan.cells if cell.id in found]
    cells = chosen(every, store)
    keys = [s.key for s in plan.samples if all(s.key in found[cell.id] for cell in cells)][:PROMPTS]
    if not cells or not keys:
        return False
    image = pixels(store.image(cells[0].id, keys[0]))
    tall = image.shape[0] / image.shape[1]
    shown = min(STEPS, max(len(found[cell.id][keys[0]]) for cell in cells))
    above = min(1.7, 8.2 / (len(cells) + 1)) * tall * len(keys) + 0.85  # image columns are as wide as fits
    below = ((WIDTH - NAMES) / shown * tall + 0.16) * len(cells) + 0.4
    with figure(WIDTH, above + below, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[above, below]).flat
        top.suptitle(f"How often each token ran (share of the steps){choice(cells, every)}", **TITLE)
        _totals(top, store, cells, found, keys)
        bottom.suptitle("Which tokens ran, step by step (faded: left out)", **TITLE)
        _steps(bottom, store, cells, found, keys[0])
        save(made, folder / "focus", "png", "svg")
    return True


def _totals(
    panel: SubFigure, store: Store, cells: Sequence[Cell], found: Mapping[str, Maps], keys: Sequence[str]
) -> None:
    whole = panel.subplots(len(keys), max(len(cells) + 1, LEAST), squeeze=False)
    for axis in whole.flat:
        axis.set_axis_off()
    axes = whole[:, : len(cells) + 1]
    for line, key in zip(axes, keys, strict=True):
        picture(line[0], store, cells[0].dense, key)
        for axis, cell in zip(line[1:], cells, strict=True):
            image = pixels(store.image(cell.id, key), "L") / 255
            axis.imshow(image, cmap="gray", vmin=-0.6, vmax=1.3)
            share = enlarged(found[cell.id][key].mean(0), image.shape)
            shown = axis.imshow(share, cmap=HEAT, vmin=0, vmax=1, alpha=0.62)
    for axis, name in zip(axes[0], ["dense image", *(cell.label for cell in cells)], strict=True):
        axis.set_title(folded(name), size=8, loc="center", color=INK)
    bar = panel.colorbar(shown, ax=axes, shrink=0.8, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["never", "half", "every step"], size=7.5)


def _steps(
    panel: SubFigure, store: Store, cells: Sequence[Cell], found: Mapping[str, Maps], key: str
) -> None:
    ran = [found[cell.id][key] for cell in cells]
    steps = [
        spread(np.flatnonzero(had.any((1, 2))), STEPS) for had in ran
    ]  # not those answered from earlier ones
    axes = panel.subplots(len(cells), max(map(len, steps)), squeeze=False)
    for line, cell, had, own in zip(axes, cells, ran, steps, strict=True):
        image = pixels(store.image(cell.id, key)) / 255
        for axis in line:
            axis.set_axis_off()
        for axis, step in zip(line, own, strict=False):
            axis.imshow(faded(image, had[step]))
            over(axis, f"{step + 1}")
        beside(line[0], cell.label)

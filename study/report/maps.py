"""The contact sheet (grid.png), and maps over the image: which tokens ran, in total and step by step
(focus.png), and which regions RALU refined first (regions.png)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import SubFigure

from fovea.study.picture import pixels
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.style import (
    INK,
    TITLE,
    drawable,
    enlarged,
    faded,
    figure,
    folded,
    over,
    picture,
    row_name,
    save,
    spread,
)
from fovea.study.report.trajectories import Traced, choice, chosen
from fovea.study.run.trace import Trace
from fovea.study.store import Store

FIRST = 16  # samples that are looked at
PROMPTS, STEPS, LEAST = 3, 10, 5  # of focus.png at most; columns at least, so that few stand together
WIDTH, NAMES = 9.5, 1.25  # inches, of a figure and of the cells' names beside their steps
CELLS, IMAGES = 3, 4  # of regions.png at most
HEAT = colormaps["viridis"]
Maps = dict[str, np.ndarray]
ROWS = 8  # prompts of a contact sheet at most


def sheet(plan: Plan, store: Store, folder: Path) -> None:
    """grid.png. A cell that lacks an image leaves its place empty."""
    cells = [cell for cell in plan.cells if store.samples(cell.id)]
    chosen = plan.samples[:ROWS]
    if not cells:
        return
    first = next(store.image(cells[0].id, key) for key in store.samples(cells[0].id))
    shape = pixels(first).shape
    tall = shape[0] / shape[1]
    with figure(1.05 * len(cells) + 1.5, 1.06 * tall * len(chosen) + 0.5, plan.random_weights) as made:
        axes = made.subplots(
            len(chosen), len(cells), squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02}
        )
        for line, sample in zip(axes, chosen, strict=True):
            for axis, cell in zip(line, cells, strict=True):
                axis.set_axis_off()
                path = store.finished(cell.id, sample.key)
                axis.imshow(pixels(path) if path else np.full((8, 8, 3), 245, np.uint8))
            text = "\n".join(wrap(shorten(drawable(sample.prompt.text), 90), 22))
            line[0].annotate(
                text, (-0.08, 0.5), xycoords="axes fraction", ha="right", va="center", size=6.5, color=INK
            )
        for axis, cell in zip(axes[0], cells, strict=True):
            axis.set_title(
                drawable(cell.label).replace(" ", "\n") if "=" in cell.label else drawable(cell.label),
                size=7.5,
                loc="center",
                color=INK,
            )
        save(made, folder / "grid", "png")


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
    bar = panel.colorbar(shown, ax=axes[:, -1], shrink=0.8, aspect=30, pad=0.01)
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
        row_name(line[0], cell.label)


def regions(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """regions.png and .svg. False, and nothing written, where no method chose any."""
    every = [one for one in traces if all(t.regions is not None for t in one.traces.values())]
    cells = chosen([one.cell for one in every], store, CELLS)
    shown = [one for one in every if one.cell in cells]
    if not shown:
        return False
    keys = list(shown[0].traces)[:IMAGES]
    rows, columns = shown[0].traces[keys[0]].grid
    wide = min(WIDTH / (3 * len(shown) + 1), 1.4)
    with figure(
        wide * (3 * len(shown) + 1), wide * rows / columns * len(keys) + 0.95, plan.random_weights
    ) as made:
        made.suptitle(f"Regions that were refined first{choice(shown, every)}", **TITLE)
        axes = made.subplots(len(keys), 3 * len(shown) + 1, squeeze=False)
        for line, key in zip(axes, keys, strict=True):
            picture(line[0], store, cells[0].dense, key)
            for axis in line:
                axis.set_axis_off()
            for i, one in enumerate(shown):
                _three(line[3 * i + 1 : 3 * i + 4], store, one, key)
        for axis, name in zip(axes[0], ["dense image", *_heads(shown)], strict=True):
            axis.set_title(name, size=7.5, loc="center", color=INK)
        save(made, folder / "regions", "png", "svg")
    return True


def _heads(shown: Sequence[Traced]) -> list[str]:
    return [
        text
        for one in shown
        for text in (
            f"{folded(one.cell.label)}\nimage",
            drawable(str(one.cell.method.get("selection", "scores"))),
            "refined first",
        )
    ]


def _three(line: Sequence, store: Store, one: Traced, key: str) -> None:
    """The cell's image, the scores its regions were chosen by, and the image where they are."""
    trace = one.traces[key]
    picture(line[0], store, one.cell.id, key)
    if trace.regions is not None:
        line[1].imshow(np.sqrt(trace.regions), cmap="gray")  # few tokens have most edges
    if path := store.finished(one.cell.id, key):
        line[2].imshow(faded(pixels(path) / 255, first(trace)))


def first(trace: Trace) -> np.ndarray:
    """Where tokens stood at full resolution while others did not: (rows, columns), 0 or 1."""
    mixed = [level for level in trace.level if len(np.unique(level)) == 2] if trace.level is not None else []
    return (mixed[0] == 1).reshape(trace.grid).astype(float) if mixed else np.zeros(trace.grid)

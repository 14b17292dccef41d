"""The contact sheet (grid.png) and maps over images.

focus.png shows which tokens ran, in total and step by step; regions.png which regions RALU refined first.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import SubFigure
from matplotlib.transforms import IdentityTransform
from PIL import Image

from fovea.study.picture import pixels, size
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.style import (
    DPI,
    INK,
    TITLE,
    drawable,
    enlarged,
    faded,
    figure,
    image_grid,
    picture,
    row_name,
    save,
    small_title,
    spread,
    wrapped,
)
from fovea.study.report.traces import Traced, chosen, chosen_traced, selection_note
from fovea.study.run.trace import Trace
from fovea.study.store import Store

MAX_SAMPLES = 16  # samples to consider for focus.png
PROMPTS, STEPS = 3, 10  # of focus.png, at most
MIN_COLUMNS = 5  # columns of focus.png at least, so that a few images are not spread apart
WIDTH, NAMES = 9.5, 1.25  # inches: of a figure, and of the cell names next to their steps
CELLS, IMAGES = 3, 4  # of regions.png, at most
HEAT = colormaps["viridis"]
Shares = dict[str, np.ndarray]  # key of a sample -> (steps, rows, columns)
SHEET_PROMPTS = 8  # prompts of the contact sheet, at most
TILE, GAP, MARGIN = 200, 17, 236  # pixels of the contact sheet: width of an image, between two, for prompts


def sheet(plan: Plan, store: Store, folder: Path) -> None:
    """Write grid.png, the images of the first prompts for all cells; missing ones are left grey."""
    cells = [cell for cell in plan.cells if store.samples(cell.id)]
    samples = plan.samples[:SHEET_PROMPTS]
    if not cells:
        return
    shapes = {size(store.image(cell.id, next(iter(store.samples(cell.id))))) for cell in cells}
    tallest = max(height / width for width, height in shapes)
    room = TILE, round(TILE * tallest)  # pixels, as are all places here, from the lower left
    down = room[1] + GAP
    with figure(1, 1, plan.random_weights) as made:  # hundreds of axes would take minutes to lay out
        made.set_layout_engine("none")
        look: dict[str, Any] = {"transform": IdentityTransform(), "color": INK}
        labels = [drawable(cell.label) for cell in cells]
        texts = [label.replace(" ", "\n") if "=" in label else label for label in labels]
        names = [made.text(0, down * len(samples), text, size=7.5, ha="center", **look) for text in texts]
        boxes = [name.get_window_extent(FigureCanvasAgg(made).get_renderer()) for name in names]
        across = max(TILE, *(round(box.width) for box in boxes)) + GAP
        for i, sample in enumerate(reversed(samples)):
            text = "\n".join(wrap(shorten(drawable(sample.prompt.text), 90), 22))
            made.text(MARGIN - GAP, down * i + room[1] / 2, text, size=6.5, ha="right", va="center", **look)
            for j, cell in enumerate(cells):
                tile = _tile(store.finished(cell.id, sample.key), room)
                made.figimage(tile, MARGIN + across * j, down * i)
        for j, name in enumerate(names):
            name.set_x(MARGIN + across * j + TILE / 2)
        top = round(max(box.y1 for box in boxes)) + GAP
        top += plan.random_weights * (40 + top // 40)  # for the warning
        made.set_size_inches((MARGIN + across * len(cells)) / DPI, top / DPI)
        save(made, folder / "grid", "png")


def _tile(path: Path | None, room: tuple[int, int]) -> np.ndarray:
    """Return an image in the room's width, in the middle of its height; grey if there is none."""
    if path is None:
        return np.full((room[1], room[0], 3), 245, np.uint8)
    image = Image.fromarray(pixels(path))
    fitted = image.resize((room[0], round(room[0] * image.height / image.width)), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", room, "white")
    tile.paste(fitted, (0, (room[1] - fitted.height) // 2))
    return np.asarray(tile)


def token_shares(plan: Plan, store: Store) -> dict[str, Shares]:
    """Return `varying_shares` of each cell, without the cells that have none."""
    found = {cell.id: varying_shares(store, cell.id, plan.keys[:MAX_SAMPLES]) for cell in plan.cells}
    return {cell: shares for cell, shares in found.items() if shares}


def varying_shares(store: Store, cell: str, keys: Iterable[str]) -> Shares:
    """Return, by sample, the share of the model that each token had, (steps, rows, columns).

    Samples in which all tokens are treated alike, as by caches of whole steps, are left out.
    """
    shares = store.focus(cell, keys)
    return {key: had for key, had in shares.items() if np.ptp(had, axis=(1, 2)).any()}


def focus(plan: Plan, store: Store, found: Mapping[str, Shares], folder: Path) -> bool:
    """Write focus.png and .svg. Return False, without writing, if every cell ran every token."""
    candidates = [cell for cell in plan.cells if cell.id in found]
    cells = chosen(candidates, store)
    keys = [key for key in plan.keys if all(key in found[cell.id] for cell in cells)][:PROMPTS]
    if not cells or not keys:
        return False
    image = pixels(store.image(cells[0].id, keys[0]))
    tall = image.shape[0] / image.shape[1]
    shown = min(STEPS, max(len(found[cell.id][keys[0]]) for cell in cells))
    above = min(1.7, 8.2 / (len(cells) + 1)) * tall * len(keys) + 0.85  # image columns are as wide as fits
    below = ((WIDTH - NAMES) / shown * tall + 0.16) * len(cells) + 0.4
    with figure(WIDTH, above + below, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[above, below]).flat
        note = selection_note(cells, candidates)
        top.suptitle(f"How often each token ran (share of the steps){note}", **TITLE)
        _totals(top, plan, store, cells, found, keys)
        bottom.suptitle("Which tokens ran, step by step (faded: left out)", **TITLE)
        _steps(bottom, store, cells, found, keys[0])
        save(made, folder / "focus", "png", "svg")
    return True


def dense_name(plan: Plan, cells: Sequence[Cell]) -> str:
    """Return the name of the first cell's dense image: its baseline's, if cells have several."""
    first, *others = dict.fromkeys(cell.dense for cell in cells)
    return next(cell.label for cell in plan.cells if cell.id == first) if others else "dense image"


def _totals(
    panel: SubFigure,
    plan: Plan,
    store: Store,
    cells: Sequence[Cell],
    found: Mapping[str, Shares],
    keys: Sequence[str],
) -> None:
    axes = image_grid(panel, len(keys), max(len(cells) + 1, MIN_COLUMNS))[:, : len(cells) + 1]
    for line, key in zip(axes, keys, strict=True):
        picture(line[0], store, cells[0].dense, key)
        for axis, cell in zip(line[1:], cells, strict=True):
            image = pixels(store.image(cell.id, key), "L") / 255
            axis.imshow(image, cmap="gray", vmin=-0.6, vmax=1.3)
            share = enlarged(found[cell.id][key].mean(0), image.shape)
            shown = axis.imshow(share, cmap=HEAT, vmin=0, vmax=1, alpha=0.62)
    names = [dense_name(plan, cells), *(cell.label for cell in cells)]
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(wrapped(name), size=8, loc="center", color=INK)
    bar = panel.colorbar(shown, ax=axes[:, -1], shrink=0.8, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["never", "half", "every step"], size=7.5)


def _steps(
    panel: SubFigure, store: Store, cells: Sequence[Cell], found: Mapping[str, Shares], key: str
) -> None:
    ran = [found[cell.id][key] for cell in cells]
    # steps in which any token ran, without those that a cache answered
    steps = [spread(np.flatnonzero(had.any((1, 2))), STEPS) for had in ran]
    axes = image_grid(panel, len(cells), max(map(len, steps)))
    for line, cell, had, own in zip(axes, cells, ran, steps, strict=True):
        image = pixels(store.image(cell.id, key)) / 255
        for axis, step in zip(line, own, strict=False):
            axis.imshow(faded(image, had[step]))
            small_title(axis, f"{step + 1}")
        row_name(line[0], cell.label)


def regions(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """Write regions.png and .svg. Return False, without writing, if no method chose regions."""
    candidates = [one for one in traces if all(t.regions is not None for t in one.traces.values())]
    shown = chosen_traced(candidates, store, CELLS)
    if not shown:
        return False
    keys = list(shown[0].traces)[:IMAGES]
    rows, columns = shown[0].traces[keys[0]].grid
    across = 3 * len(shown) + 1  # images in a line
    wide = min(WIDTH / across, 1.4)
    high = wide * rows / columns
    with figure(wide * across, high * len(keys) + 0.95, plan.random_weights) as made:
        made.suptitle(f"Regions that were refined first{selection_note(shown, candidates)}", **TITLE)
        axes = image_grid(made, len(keys), across)
        for line, key in zip(axes, keys, strict=True):
            picture(line[0], store, shown[0].cell.dense, key)
            for i, one in enumerate(shown):
                _region_images(line[3 * i + 1 : 3 * i + 4], store, one, key)
        dense = wrapped(dense_name(plan, [one.cell for one in shown]))
        for axis, name in zip(axes[0], [dense, *_region_titles(shown)], strict=True):
            axis.set_title(name, size=7.5, loc="center", color=INK)
        save(made, folder / "regions", "png", "svg")
    return True


def _region_titles(shown: Sequence[Traced]) -> list[str]:
    return [
        text
        for one in shown
        for text in (
            f"{wrapped(one.cell.label)}\nimage",
            drawable(str(one.cell.method.get("selection", "scores"))),
            "refined first",
        )
    ]


def _region_images(line: Sequence, store: Store, one: Traced, key: str) -> None:
    """Show the cell's image, the scores that its regions were chosen by, and the chosen regions."""
    trace = one.traces[key]
    picture(line[0], store, one.cell.id, key)
    if trace.regions is not None:
        line[1].imshow(np.sqrt(trace.regions), cmap="gray")  # root: most edge pixels are in a few regions
    if path := store.finished(one.cell.id, key):
        line[2].imshow(faded(pixels(path) / 255, refined_first(trace)))


def refined_first(trace: Trace) -> np.ndarray:
    """Return the mask (rows, columns) of tokens at full resolution in the first step of mixed resolution."""
    mixed = [level for level in trace.level if len(np.unique(level)) == 2] if trace.level is not None else []
    return (mixed[0] == 1).reshape(trace.grid).astype(float) if mixed else np.zeros(trace.grid)

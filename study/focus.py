"""Focus maps: which tokens ran, in total and step by step, over the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from study.cells import Cell
from study.picture import pixels, unpacked
from study.plan import Plan
from study.store import Store
from study.style import INK, MUTED, figure, save

PROMPTS, STEPS = 3, 10  # shown at most
HEAT = colormaps["viridis"]


def focus(plan: Plan, store: Store, folder: Path) -> bool:
    """focus.png and .svg. False, and nothing written, where every cell ran every token."""
    cells = [cell for cell in plan.cells if _maps(store, cell)]
    keys = [s.key for s in plan.samples if all(s.key in _maps(store, cell) for cell in cells)][:PROMPTS]
    if not cells or not keys:
        return False
    image = pixels(store.image(cells[0].id, keys[0]))
    tall = image.shape[0] / image.shape[1]
    shown = min(STEPS, max(len(_maps(store, cell)[keys[0]]) for cell in cells))
    above = (
        min(1.7, 8.2 / (len(cells) + 1)) * tall * len(keys) + 0.6
    )  # inches: image columns are as wide as fits
    below = (8.3 / shown * tall + 0.22) * len(cells) + 0.4
    with figure(9.5, above + below, plan.random_weights) as made:
        top, bottom = made.subfigures(2, 1, squeeze=False, height_ratios=[above, below]).flat
        _totals(top, plan, store, cells, keys)
        _steps(bottom, store, cells, keys[0])
        save(made, folder / "focus", "png", "svg")
    return True


def _maps(store: Store, cell: Cell) -> dict[str, np.ndarray]:
    """Key to (steps, rows, columns): the share of the model that each token had. Only where tokens differ: a
    cache that holds whole steps has nothing to show here."""
    found = {key: unpacked(r["focus"]) for key, r in store.samples(cell.id).items() if r["focus"]}
    return {key: had for key, had in found.items() if np.ptp(had, axis=(1, 2)).any()}


def _totals(panel: SubFigure, plan: Plan, store: Store, cells: Sequence[Cell], keys: Sequence[str]) -> None:
    panel.suptitle("How often each token ran (share of the steps)", x=0.01, ha="left", size=9, color=INK)
    axes = panel.subplots(len(keys), len(cells) + 1, squeeze=False)
    for line, key in zip(axes, keys, strict=True):
        _picture(line[0], store, cells[0].dense, key)
        for axis, cell in zip(line[1:], cells, strict=True):
            share = _maps(store, cell)[key].mean(0)
            image = pixels(store.image(cell.id, key), "L") / 255
            axis.imshow(image, cmap="gray", vmin=-0.6, vmax=1.3)
            heat = np.kron(
                share, np.ones((image.shape[0] // share.shape[0], image.shape[1] // share.shape[1]))
            )
            shown = axis.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.62)
            axis.set_axis_off()
    for axis, name in zip(axes[0], ["dense image", *(cell.label for cell in cells)], strict=True):
        axis.set_title(name, size=8, loc="center", color=INK)
    bar = panel.colorbar(shown, ax=axes, shrink=0.8, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["never", "half", "every step"], size=7.5)


def _picture(axis: Axes, store: Store, cell: str, key: str) -> None:
    axis.set_axis_off()
    if store.image(cell, key).is_file():
        axis.imshow(pixels(store.image(cell, key)))


def _steps(panel: SubFigure, store: Store, cells: Sequence[Cell], key: str) -> None:
    panel.suptitle("Which tokens ran, step by step (faded: left out)", x=0.01, ha="left", size=9, color=INK)
    maps = [_maps(store, cell)[key] for cell in cells]
    chosen = [_spread(len(ran)) for ran in maps]
    axes = panel.subplots(len(cells), max(map(len, chosen)), squeeze=False)
    for line, cell, ran, steps in zip(axes, cells, maps, chosen, strict=True):
        image = pixels(store.image(cell.id, key)) / 255
        for axis in line:
            axis.set_axis_off()
        for axis, step in zip(line, steps, strict=False):
            axis.imshow(faded(image, ran[step]))
            axis.set_title(f"{step + 1}", size=7, loc="center", color=MUTED, pad=2)
        line[0].annotate(
            cell.label, (-0.12, 0.5), xycoords="axes fraction", ha="right", va="center", size=8, color=INK
        )


def _spread(steps: int) -> list[int]:
    """At most STEPS of the steps, evenly spaced, first and last among them."""
    return sorted({round(i) for i in np.linspace(0, steps - 1, min(steps, STEPS))})


def faded(image: np.ndarray, ran: np.ndarray) -> np.ndarray:
    """The image (h, w, 3) where tokens (rows, columns) ran; pale grey where they did not."""
    scale = image.shape[0] // ran.shape[0], image.shape[1] // ran.shape[1]
    on = np.kron(ran, np.ones(scale))[..., None]  # (h, w, 1)
    pale = 0.86 + 0.12 * image.mean(-1, keepdims=True)
    return on * image + (1 - on) * pale

"""regions.png: what RALU saw of an image at half resolution, and the regions that it refined first for it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fovea.study.picture import pixels
from fovea.study.plan.plan import Plan
from fovea.study.report.panels import TITLE, faded, folded, picture
from fovea.study.report.style import INK, figure, save
from fovea.study.report.traced import Traced, choice, chosen
from fovea.study.run.trace import Trace
from fovea.study.store import Store

CELLS, PROMPTS = 3, 4  # shown at most
WIDTH = 9.5  # inches


def regions(plan: Plan, store: Store, traces: Sequence[Traced], folder: Path) -> bool:
    """regions.png and .svg. False, and nothing written, where no method chose any."""
    every = [one for one in traces if all(t.regions is not None for t in one.traces.values())]
    cells = chosen([one.cell for one in every], store, CELLS)
    shown = [one for one in every if one.cell in cells]
    if not shown:
        return False
    keys = list(shown[0].traces)[:PROMPTS]
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
            one.cell.method.get("selection", "scores"),
            "refined first",
        )
    ]


def _three(line: Sequence, store: Store, one: Traced, key: str) -> None:
    """The cell's image, the scores its regions were chosen by, and the image where they are."""
    trace = one.traces[key]
    picture(line[0], store, one.cell.id, key)
    if trace.regions is not None:
        line[1].imshow(np.sqrt(trace.regions), cmap="gray")  # few tokens have most edges
    if store.image(one.cell.id, key).is_file():
        line[2].imshow(faded(pixels(store.image(one.cell.id, key)) / 255, first(trace)))


def first(trace: Trace) -> np.ndarray:
    """Where tokens stood at full resolution while others did not: (rows, columns), 0 or 1."""
    mixed = [level for level in trace.level if len(np.unique(level)) == 2] if trace.level is not None else []
    return (mixed[0] == 1).reshape(trace.grid).astype(float) if mixed else np.zeros(trace.grid)

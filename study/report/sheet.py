"""A contact sheet: prompts down, cells across, the images as they are."""

from pathlib import Path
from textwrap import shorten, wrap

import numpy as np

from fovea.study.picture import pixels
from fovea.study.plan.plan import Plan
from fovea.study.report.style import INK, figure, save
from fovea.study.store import Store

ROWS = 8  # prompts shown at most


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
                path = store.image(cell.id, sample.key)
                axis.imshow(pixels(path) if path.is_file() else np.full((8, 8, 3), 245, np.uint8))
            text = "\n".join(wrap(shorten(plain(sample.prompt.text), 90), 22))
            line[0].annotate(
                text, (-0.08, 0.5), xycoords="axes fraction", ha="right", va="center", size=6.5, color=INK
            )
        for axis, cell in zip(axes[0], cells, strict=True):
            axis.set_title(
                cell.label.replace(" ", "\n") if "=" in cell.label else cell.label,
                size=7.5,
                loc="center",
                color=INK,
            )
        save(made, folder / "grid", "png")


def plain(prompt: str) -> str:
    """Drawn as written: matplotlib would read $...$ as mathematics, and has no glyph for what is not text."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else "▯" for c in prompt).replace("$", r"\$")

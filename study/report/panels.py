"""What the figures have in common: rows of images, lines named at their ends; and the contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill, shorten, wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.typing import ColorType

from fovea.study.picture import pixels
from fovea.study.plan.plan import Plan
from fovea.study.report.style import FAINT, INK, MUTED, drawable, figure, save
from fovea.study.store import Store

TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "size": 9, "color": INK}  # of a part of a figure
SIZE = 7.5  # points, of the names at lines' ends
LONGEST = 40  # characters of such a name
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


def picture(axis: Axes, store: Store, cell: str, key: str) -> None:
    """The image, where there is one."""
    axis.set_axis_off()
    if path := store.finished(cell, key):
        axis.imshow(pixels(path))


def over(axis: Axes, text: str, size: float = 7) -> None:
    axis.set_title(text, size=size, loc="center", color=MUTED, pad=2)


def beside(axis: Axes, label: str) -> None:
    """The name of a row of images, left of its first."""
    place = {"xy": (-0.1, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
    axis.annotate(folded(label), size=8, color=INK, **place)


def folded(label: str) -> str:
    """In lines that fit over an image."""
    return fill(drawable(label), 15, break_long_words=False)


def spread(steps: np.ndarray, most: int) -> list[int]:
    """At most so many of the steps, evenly spaced, first and last among them."""
    return [int(steps[round(i)]) for i in np.linspace(0, len(steps) - 1, min(len(steps), most))]


def enlarged(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Of tokens (rows, columns), as an image of the shape (h, w, ...)."""
    return np.kron(values, np.ones((shape[0] // values.shape[0], shape[1] // values.shape[1])))


def faded(image: np.ndarray, ran: np.ndarray) -> np.ndarray:
    """The image (h, w, 3) where tokens (rows, columns) ran; pale grey where they did not."""
    on = enlarged(ran, image.shape)[..., None]  # (h, w, 1)
    pale = 0.86 + 0.12 * image.mean(-1, keepdims=True)
    return on * image + (1 - on) * pale


def by_sigma(axis: Axes) -> None:
    """The noise level across, from noise to image."""
    axis.set_xlim(1.02, -0.01)
    axis.set_xlabel("noise level σ that the step starts from: 1 is noise, 0 the image")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)


class End(NamedTuple):
    x: float
    y: float
    text: str
    colour: ColorType


def name_ends(axis: Axes, ends: Sequence[End], height: float) -> None:
    """Names to the right of the axis, each joined to its line's end, none over another. The limits must be
    set. height: of the axis, in inches."""
    place = axis.transScale + axis.transLimits
    at = [float(place.transform((end.x, end.y))[1]) for end in ends]
    gap = 1.25 * SIZE / 72 / height
    for end, y in zip(ends, spaced(at, gap), strict=True):
        axis.annotate(
            drawable(shorten(end.text, LONGEST, placeholder=" …")),
            (end.x, end.y),
            (1.025, y),
            textcoords="axes fraction",
            annotation_clip=False,
            color=end.colour,
            size=SIZE,
            va="center",
            arrowprops={"arrowstyle": "-", "color": end.colour, "linewidth": 0.4, "alpha": 0.6, "shrinkA": 1},
        )


def spaced(at: Sequence[float], gap: float) -> list[float]:
    """The places, moved as little as keeps them in order and `gap` apart: those too close spread evenly about
    their mean."""
    order = np.argsort(at, kind="stable")
    merged: list[tuple[float, list[int]]] = []  # centre, members
    for i in order.tolist():
        centre, members = at[i], [i]
        while merged and centre - merged[-1][0] < gap * (len(members) + len(merged[-1][1])) / 2:
            before, others = merged.pop()
            centre = (before * len(others) + centre * len(members)) / (len(others) + len(members))
            members = others + members
        merged.append((centre, members))
    found = [0.0] * len(at)
    for centre, members in merged:
        for j, i in enumerate(members):
            found[i] = centre + (j - (len(members) - 1) / 2) * gap
    return found

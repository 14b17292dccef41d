"""Rows of images: what the figures that show tokens over an image have in common."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fovea.study.picture import pixels
from fovea.study.report.sheet import plain
from fovea.study.report.style import INK, MUTED
from fovea.study.store import Store

TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "size": 9, "color": INK}  # of a part of a figure


def picture(axis: Axes, store: Store, cell: str, key: str) -> None:
    """The image, where there is one."""
    axis.set_axis_off()
    if store.image(cell, key).is_file():
        axis.imshow(pixels(store.image(cell, key)))


def over(axis: Axes, text: str, size: float = 7) -> None:
    axis.set_title(text, size=size, loc="center", color=MUTED, pad=2)


def beside(axis: Axes, label: str) -> None:
    """The name of a row of images, left of its first."""
    place = {"xy": (-0.1, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
    axis.annotate(folded(label), size=8, color=INK, **place)


def folded(label: str) -> str:
    """In lines that fit over an image."""
    return fill(plain(label), 15, break_long_words=False)


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

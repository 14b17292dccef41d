"""Lines named at their ends instead of in a legend."""

from collections.abc import Sequence
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.typing import ColorType

from fovea.study.report.sheet import plain
from fovea.study.report.style import FAINT

SIZE = 7.5  # points
LONGEST = 40  # characters of a name


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
            plain(shorten(end.text, LONGEST, placeholder=" …")),
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

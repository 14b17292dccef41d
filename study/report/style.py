"""One look for every figure: the colours of Okabe and Ito, thin grey axes, labels at the data; rows of
images, and lines that are named at their ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import fill, shorten
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from fovea.study.files import write
from fovea.study.picture import pixels
from fovea.study.store import Store

Kind = Literal["png", "svg"]
DPI = 200  # of PNG
INK, MUTED, FAINT = "#222222", "#767676", "#d9d9d9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
WARNING = "#B00020"
RANDOM = "RANDOM WEIGHTS: timing only, the images are noise"
LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # above the axes, where ticks are never: not looked for anew at each drawing
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "legend.title_fontsize": 7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "fovea",
    "text.parse_math": False,  # a $ is a $
}
TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "size": 9, "color": INK}  # of a part of a figure
SIZE = 7.5  # points, of the names at lines' ends
LONGEST = 40  # characters of such a name


@contextmanager
def figure(width: float, height: float, random_weights: bool = False) -> Iterator[Figure]:
    """A figure in inches, free of pyplot's global state."""
    with mpl.rc_context(LOOK):
        made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        if random_weights:
            made.suptitle(RANDOM, color=WARNING, weight="bold", size=9)
        yield made


def save(figure: Figure, path: Path, *kinds: Kind) -> None:
    """path without its ending, once per kind."""
    lay_out(figure)
    for kind in kinds:
        write(path.with_suffix(f".{kind}"), drawn(figure, kind))


def lay_out(figure: Figure) -> None:
    """Gives each part its place, once: `Figure.savefig` would do so twice a file."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def drawn(figure: Figure, kind: Kind) -> bytes:
    """A figure that is laid out, as a file. No dates inside: the same study gives the same file."""
    stream = BytesIO()
    if kind == "svg":
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    else:
        FigureCanvasAgg(figure).print_png(
            stream, metadata={"Software": None}, pil_kwargs={"compress_level": 4}
        )
    return stream.getvalue()


def bar_colour(role: str) -> str:
    """Of a cell in a plot of costs alone, by its role."""
    return {"dense": INK, "steps": MUTED}.get(role, COLOURS[0])


def drawable(text: str) -> str:
    """Text as the figures' font can draw it."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else "▯" for c in text)


def picture(axis: Axes, store: Store, cell: str, key: str) -> None:
    """The image, where there is one."""
    axis.set_axis_off()
    if path := store.finished(cell, key):
        axis.imshow(pixels(path))


def over(axis: Axes, text: str, size: float = 7) -> None:
    axis.set_title(text, size=size, loc="center", color=MUTED, pad=2)


def row_name(axis: Axes, label: str) -> None:
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

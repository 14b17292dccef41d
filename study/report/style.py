"""Shared style of all figures: Okabe and Ito's colours, thin grey axes, rows of images, labelled lines."""

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
from matplotlib.figure import Figure, FigureBase
from matplotlib.typing import ColorType
from PIL import Image
from scipy.optimize import isotonic_regression

from fovea.study.files import write
from fovea.study.picture import pixels
from fovea.study.store import Store

Kind = Literal["png", "svg"]
DPI = 200  # of PNG files
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
    "axes.titley": 1.0,  # a fixed place saves matplotlib the search for one at each drawing
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
    "text.parse_math": False,  # labels may contain $
}
TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "size": 9, "color": INK}  # of a subfigure
NAME_SIZE = 7.5  # font size of line labels, in points
MAX_NAME = 40  # characters of a line label


@contextmanager
def figure(width: float, height: float, random_weights: bool = False) -> Iterator[Figure]:
    """Create a figure without pyplot's global state. width, height: in inches."""
    with mpl.rc_context(LOOK):
        made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        if random_weights:
            made.suptitle(RANDOM, color=WARNING, weight="bold", size=9)
        yield made


def save(figure: Figure, path: Path, *kinds: Kind) -> None:
    """Write the figure once per kind. path: without suffix."""
    lay_out(figure)
    for kind in kinds:
        write(path.with_suffix(f".{kind}"), rendered(figure, kind))


def lay_out(figure: Figure) -> None:
    """Run the layout engine once; `Figure.savefig` would run it twice per file."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def rendered(figure: Figure, kind: Kind) -> bytes:
    """Render a laid-out figure to a file's bytes, without dates so that equal studies give equal files."""
    stream = BytesIO()
    if kind == "svg":
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    else:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        opaque = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # half the time to encode
        opaque.save(stream, "PNG", compress_level=4, dpi=(figure.dpi, figure.dpi))
    return stream.getvalue()


def bar_colour(role: str) -> str:
    """Return the colour of a cell of this role in a plot of costs only."""
    return {"dense": INK, "steps": MUTED}.get(role, COLOURS[0])


def drawable(text: str) -> str:
    """Replace characters that the figures' font cannot draw."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else "▯" for c in text)


def image_grid(panel: FigureBase, rows: int, columns: int) -> np.ndarray:
    """Return axes for images, without frames and ticks, (rows, columns)."""
    axes = panel.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return axes


def picture(axis: Axes, store: Store, cell: str, key: str) -> None:
    """Show an image of the store, if there is one."""
    if path := store.finished(cell, key):
        axis.imshow(pixels(path))


def small_title(axis: Axes, text: str) -> None:
    axis.set_title(text, size=7, loc="center", color=MUTED, pad=2)


def row_name(axis: Axes, label: str) -> None:
    """Write the name of a row of images to the left of its first one."""
    place = {"xy": (-0.1, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
    axis.annotate(wrapped(label), size=8, color=INK, **place)


def wrapped(label: str) -> str:
    """Wrap a label to the width of an image."""
    return fill(drawable(label), 15, break_long_words=False)


def spread(steps: np.ndarray, most: int) -> list[int]:
    """Return at most `most` of the steps, evenly spaced, including the first and the last."""
    return [int(steps[round(i)]) for i in np.linspace(0, len(steps) - 1, min(len(steps), most))]


def enlarged(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Upsample token values (rows, columns) to an image of shape (h, w, ...)."""
    return np.kron(values, np.ones((shape[0] // values.shape[0], shape[1] // values.shape[1])))


def faded(image: np.ndarray, ran: np.ndarray) -> np.ndarray:
    """Keep the image (h, w, 3) where tokens ran (rows, columns; 0 to 1), and fade it to grey elsewhere."""
    on = enlarged(ran, image.shape)[..., None]  # (h, w, 1)
    pale = 0.86 + 0.12 * image.mean(-1, keepdims=True)
    return on * image + (1 - on) * pale


def set_sigma_axis(axis: Axes) -> None:
    """Set up the x axis for the noise level, from noise to image."""
    axis.set_xlim(1.02, -0.01)
    axis.set_xlabel("noise level σ that the step starts from: 1 is noise, 0 the image")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)


class End(NamedTuple):
    """The labelled end of a line, in data coordinates."""

    x: float
    y: float
    text: str
    colour: ColorType


def name_ends(axis: Axes, ends: Sequence[End], height: float) -> None:
    """Label line ends to the right of the axis, without overlap and connected to the lines.

    The axis limits must be set. height: of the axis, in inches.
    """
    place = axis.transScale + axis.transLimits
    at = [float(place.transform((end.x, end.y))[1]) for end in ends]
    gap = 1.25 * NAME_SIZE / 72 / height
    for end, y in zip(ends, spaced(at, gap), strict=True):
        axis.annotate(
            drawable(shorten(end.text, MAX_NAME, placeholder=" …")),
            (end.x, end.y),
            (1.025, y),
            textcoords="axes fraction",
            annotation_clip=False,
            color=end.colour,
            size=NAME_SIZE,
            va="center",
            arrowprops={"arrowstyle": "-", "color": end.colour, "linewidth": 0.4, "alpha": 0.6, "shrinkA": 1},
        )


def spaced(at: Sequence[float], gap: float) -> list[float]:
    """Move positions as little as possible so that they stay in order and at least `gap` apart.

    Positions that are too close are spread evenly about their mean.
    """
    order, places = np.argsort(at, kind="stable"), gap * np.arange(len(at))
    found = np.empty(len(at))
    found[order] = isotonic_regression(np.array(at)[order] - places).x + places
    return found.tolist()

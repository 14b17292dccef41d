"""One look for every figure: the colours of Okabe and Ito, thin grey axes, labels at the data."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from fovea.study.files import write

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


@contextmanager
def figure(width: float, height: float, random_weights: bool = False) -> Iterator[Figure]:
    """A figure in inches, free of pyplot's global state."""
    with mpl.rc_context(LOOK):
        made = Figure(figsize=(width, height), layout="constrained")
        if random_weights:
            made.suptitle(RANDOM, color=WARNING, weight="bold", size=9)
        yield made


def save(figure: Figure, path: Path, *kinds: str) -> None:
    """path without its ending, once per kind. No dates inside: the same study gives the same file."""
    for kind in kinds:
        stream = BytesIO()
        figure.savefig(
            stream, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None}
        )
        write(path.with_suffix(f".{kind}"), stream.getvalue())


def remove(path: Path, *kinds: str) -> None:
    """What an earlier report left and this one has not."""
    for kind in kinds:
        path.with_suffix(f".{kind}").unlink(missing_ok=True)


def drawable(text: str) -> str:
    """Text as the figures' font can draw it."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else "▯" for c in text)

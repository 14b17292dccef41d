"""What is known of a score before any image is made: all that a table, a plot or a test has to know of it."""

import json
import math
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

Better = Literal["higher", "lower"]
Kind = Literal["likeness", "distance", "preference", "text"]
FLAT = 112, 128  # levels of the two grey images that `flat` is of


@dataclass(frozen=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="strings"))
class Facts:
    """title: in words, without what the score's name has in brackets; unit: of the figure.

    kind: `likeness` to the dense image of the same key; `distance` of all images from a reference set;
    `preference`, how good an image is by itself or to people; `text`, how well it agrees with its prompt.

    biased: the figure depends on n, so that different n must not be compared.
    hidden: in the data, but not in tables and plots. reference: a likeness of the dense images to themselves.
    low, high: what no value is beyond. flat: the likeness of a grey image to one 16 levels brighter.
    """

    title: str
    better: Better
    kind: Kind
    unit: str = ""
    biased: bool = False
    hidden: bool = False
    reference: float | None = None
    low: float = -math.inf
    high: float = math.inf
    flat: float | None = None

    @property
    def axis(self) -> str:
        """`PSNR to dense (dB)`"""
        beside = " to dense" if self.kind == "likeness" else ""
        return f"{self.title}{beside}{f' ({self.unit})' if self.unit else ''}"

    def heading(self, name: str) -> str:
        """Of a column for the score of this name: the title where that is the name in other letters, PSNR."""
        return self.title if self.title.lower() == name else name

    def plain(self) -> dict[str, Any]:
        """As JSON, infinities as text: `Facts(**plain)` gives it back."""
        return json.loads(TypeAdapter(Facts).dump_json(self))

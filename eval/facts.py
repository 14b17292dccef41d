"""Static facts about a score, known before any image is made: all that tables, plots and tests need."""

import json
import math
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

Better = Literal["higher", "lower"]
Kind = Literal["likeness", "distance", "preference", "text"]
FLAT = 112, 128  # grey levels of the two images compared for `flat`


@dataclass(frozen=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="strings"))
class Facts:
    """Static facts about a score.

    title: in words, without the part of the score's name in brackets.
    unit: unit of the value.
    kind: `likeness` to the dense image of the same key; `distance` of all images from a reference set;
        `preference`, the quality of an image by itself or to people; `text`, agreement with the prompt.
    biased: the value depends on n, so scores with different n must not be compared.
    hidden: stored, but not shown in tables and plots.
    reference: likeness of the dense images to themselves.
    low, high: bounds of the value.
    flat: likeness of a grey image to one 16 levels brighter.
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
        """Axis title, such as `PSNR to dense (dB)`."""
        beside = " to dense" if self.kind == "likeness" else ""
        return f"{self.title}{beside}{f' ({self.unit})' if self.unit else ''}"

    def heading(self, name: str) -> str:
        """Column heading: the title if it is the score's name in different case (PSNR), else the name."""
        return self.title if self.title.lower() == name else name

    def plain(self) -> dict[str, Any]:
        """Convert to JSON, with infinities as text; `Facts(**plain)` is the inverse."""
        return json.loads(TypeAdapter(Facts).dump_json(self))

"""CLIP score: agreement between an image and its prompt (Hessel et al. 2021, arXiv:2104.08718)."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.backbone import EMOJI, Backbone
from fovea.eval.encoder import cosines
from fovea.eval.facts import Facts
from fovea.eval.per_image import Judged, OfBackbone
from fovea.eval.samples import Batch
from fovea.eval.transformers_clip import TransformersCLIP


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CLIPScore(OfBackbone, Judged):
    """100 max(cos, 0) of image and prompt features, averaged over images: `clip_score[emoji]`.

    The scale is torchmetrics', not Hessel's 2.5 max(cos, 0), and the prompt has no prefix. (torchmetrics
    clips the mean at zero, which is the same unless an image has a negative cosine.) Scores of different
    backbones are not comparable.

    difference: to the dense images of the same keys, by paired bootstrap.
    """

    backbone: Backbone | TransformersCLIP = EMOJI
    seed: int = 0

    facts: ClassVar[Facts] = Facts("CLIP score", "higher", "text", low=0, high=100)

    @property
    def name(self) -> str:
        return f"clip_score[{self.backbone.label}]"

    def figures(self, batch: Batch) -> tuple[float, ...]:
        return tuple((100 * cosines(self.backbone.load(), batch).clamp(min=0)).tolist())

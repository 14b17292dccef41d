"""Similarity of an image to the dense one: the cosine of their DINO or CLIP features."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch.nn.functional import cosine_similarity

from fovea.eval.backbone import EMOJI, Backbone
from fovea.eval.dino import DINO
from fovea.eval.facts import Facts
from fovea.eval.per_image import Compared, OfBackbone
from fovea.eval.samples import Batch
from fovea.eval.transformers_clip import TransformersCLIP


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Similarity(OfBackbone, Compared):
    """Cosine of the features of each image and its dense image, averaged over images.

    Named after its backbone: `similarity[dinov2-base]`, `similarity[ViT-B-32/openai]`. It is 1 for identical
    images; because features share a common component, unrelated images are far from 0.
    """

    backbone: Backbone | TransformersCLIP | DINO = EMOJI

    facts: ClassVar[Facts] = Facts("cosine of features", "higher", "likeness", reference=1, low=-1, high=1)

    @property
    def name(self) -> str:
        return f"similarity[{self.backbone.label}]"

    def figures(self, batch: Batch) -> tuple[float, ...]:
        encoder = self.backbone.load()
        a, b = (x.of(encoder)["features"].double() for x in (batch, batch.baseline))  # (b, d) each
        return tuple(cosine_similarity(a, b).tolist())

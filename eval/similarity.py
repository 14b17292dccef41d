"""How alike the dense image and another are to a network: the cosine of their DINO or CLIP features."""

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
    """The cosine, at most 1, of the features of each image and its dense one, mean over images.

    Named after its backbone: `similarity[dinov2-base]`, `similarity[ViT-B-32/openai]`. Identical images give
    1; features share a common part, so that unrelated images are far from 0.
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

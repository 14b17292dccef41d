"""PickScore: which image people would pick for a prompt (Kirstain et al. 2023, arXiv:2305.01569)."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval.encoder import cosines
from fovea.eval.facts import Facts
from fovea.eval.network import Device
from fovea.eval.per_image import Judged, OfBackbone
from fovea.eval.samples import Batch
from fovea.eval.transformers_clip import TransformersCLIP


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PickScore(OfBackbone, Judged):
    """The logit of image and prompt in a fine-tuned CLIP ViT-H/14, mean over images: some 18 to 24.

    Not the probability of being picked, which is a softmax of these logits over the images that compete.
    model: a folder, or `owner/name` in the hub's cache. processor: where the tokenizer and the preprocessing
    are; the published weights were used with those of the CLIP that they were tuned from. difference: to the
    dense images of the same keys, bootstrapped in pairs.
    """

    model: str = "yuvalkirstain/PickScore_v1"
    processor: str | None = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 16
    seed: int = 0

    facts: ClassVar[Facts] = Facts("PickScore", "higher", "preference")

    name: ClassVar[str] = "pick_score"

    @property
    def backbone(self) -> TransformersCLIP:
        return TransformersCLIP(self.model, self.processor, None, self.device, self.batch)

    def figures(self, batch: Batch) -> tuple[float, ...]:
        encoder = self.backbone.load()
        scale = encoder.towers.clip.logit_scale.double().exp().item()
        return tuple((scale * cosines(encoder, batch)).tolist())

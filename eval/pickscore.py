"""PickScore: predicted human choice between images for a prompt (Kirstain et al. 2023, arXiv:2305.01569)."""

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
    """Logit of image and prompt in a fine-tuned CLIP ViT-H/14, averaged over images: about 18 to 24.

    It is not the probability of being chosen, which is a softmax of the logits of competing images.

    model: a folder, or `owner/name` in the hub cache.
    processor: source of tokenizer and preprocessing. The published weights were used with those of the CLIP
        they were fine-tuned from.
    difference: to the dense images of the same keys, by paired bootstrap.
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

"""CLIP-IQA: image quality by comparing CLIP's similarity to pairs of opposite prompts (arXiv:2207.12396)."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import normalize

from fovea.eval import Unavailable
from fovea.eval.backbone import Backbone
from fovea.eval.encoder import TextEncoder
from fovea.eval.facts import Facts
from fovea.eval.network import CENTRE, SPREAD, in_batches
from fovea.eval.per_image import Judged
from fovea.eval.samples import Batch

PROMPTS = {  # good, bad
    "pyiqa": (
        *("Good image", "bad image", "Sharp image", "blurry image", "sharp edges", "blurry edges"),
        *("High resolution image", "low resolution image", "Noise-free image", "noisy image"),
    ),
    "torchmetrics": ("Good photo.", "Bad photo."),
}
RN50 = Backbone("RN50-quickgelu", "openai", "RN50/openai", batch=4)


def features(encoder: TextEncoder, images: Tensor) -> Tensor:
    """Return features (n, d) of images (n, 3, H, W) at full size, without positions in the attention pool."""
    visual = encoder.towers.visual
    if not hasattr(visual, "attnpool"):
        reason = "CLIP-IQA takes images at their own size, for which this backbone has no attention pool"
        raise Unavailable(reason, "use one of open_clip's RN models")
    positions = torch.zeros_like(visual.attnpool.positional_embedding[:1])
    centre, spread = (torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (CENTRE, SPREAD))

    def run(images: Tensor) -> Tensor:
        x = ((images / 255 - centre) / spread).to(encoder.device)
        return functional_call(visual, {"attnpool.positional_embedding": positions}, x)

    return in_batches(run, len(images), encoder.batch, images.cpu())


def goodness(encoder: TextEncoder, texts: Tensor, scale: float, images: Tensor) -> tuple[float, ...]:
    """Return each image's probability of the good prompt, averaged over pairs.

    images: (n, 3, H, W).
    texts: (2 pairs, d).
    """
    cosine = normalize(features(encoder, images).double()) @ normalize(texts.double()).T  # (n, 2 pairs)
    good = (scale * cosine).unflatten(1, (-1, 2)).softmax(-1)[..., 0]  # (n, pairs)
    return tuple(good.mean(1).tolist())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CLIPIQA(Judged):
    """Probability between 0 and 1 that an image is good rather than bad, averaged over images.

    prompts: `pyiqa` averages over five pairs, as RALU and most recent papers do, and is named
        `clip_iqa[pyiqa,RN50/openai]`; `torchmetrics` uses one pair. The two are not comparable. The image's
        own prompt is not used.

    difference: to the dense images of the same keys, by paired bootstrap.
    """

    backbone: Backbone = RN50
    prompts: Literal["pyiqa", "torchmetrics"] = "pyiqa"
    seed: int = 0

    facts: ClassVar[Facts] = Facts("CLIP-IQA", "higher", "preference", low=0, high=1)

    @property
    def name(self) -> str:
        return f"clip_iqa[{self.prompts},{self.backbone.label}]"

    def check(self) -> None:
        self.backbone.weights()

    @property
    def identity(self) -> dict[str, Any]:
        return {"prompts": PROMPTS[self.prompts], **self.backbone.load().identity}

    def figures(self, batch: Batch) -> tuple[float, ...]:
        encoder = self.backbone.load()
        # torchmetrics hard-codes the scale as 100, its value in OpenAI's models
        scale = encoder.towers.logit_scale.double().exp().item() if self.prompts == "pyiqa" else 100.0
        return goodness(encoder, encoder.texts(PROMPTS[self.prompts]), scale, batch.images)

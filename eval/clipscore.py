"""CLIP score: how well an image agrees with its prompt (Hessel et al. 2021, arXiv:2104.08718)."""

from functools import partial
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fovea.eval import Samples
from fovea.eval.backbone import EMOJI, Backbone, Encoder
from fovea.eval.facts import Facts
from fovea.eval.judged import Judge, Judged
from fovea.eval.transformers_clip import TransformersCLIP


def agreement(encoder: Encoder, texts: Tensor, images: Tensor) -> tuple[float, ...]:
    """100 max(cos, 0) of each image (n, 3, H, W) and the features (n, d) of its text."""
    cosine = cosine_similarity(encoder.images(images).double(), texts.double())  # (n,)
    return tuple((100 * cosine.clamp(min=0)).tolist())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CLIPScore(Judged):
    """100 max(cos, 0) of image and prompt, mean over images, named after its backbone: `clip_score[emoji]`.

    On torchmetrics' scale, not Hessel's 2.5 max(cos, 0), and with no prefix before the prompt. (torchmetrics
    cuts the mean at zero, which is the same unless an image has a negative cosine.) Scores of different
    backbones do not compare. difference: to the dense images of the same keys, bootstrapped in pairs.
    """

    backbone: Backbone | TransformersCLIP = EMOJI
    seed: int = 0

    facts: ClassVar[Facts] = Facts("CLIP score", "higher", "text", low=0, high=100)

    @property
    def name(self) -> str:
        return f"clip_score[{self.backbone.label}]"

    def check(self) -> None:
        self.backbone.weights()

    def judge(self, samples: Samples) -> Judge:
        encoder = self.backbone.load()
        return partial(agreement, encoder, encoder.texts(samples.prompts))

"""CLIP score: how well an image agrees with its prompt (Hessel et al. 2021, arXiv:2104.08718)."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cosine_similarity

from eval import Better, Samples, Score, quality
from eval.backbone import EMOJI, Backbone, Encoder
from eval.statistics import paired_difference, pooled, standard_error


def agreement(encoder: Encoder, images: Tensor, texts: Tensor) -> tuple[float, ...]:
    """100 max(cos, 0) of each image (n, 3, H, W) and the features (n, d) of its text."""
    cosine = cosine_similarity(encoder.images(images).double(), texts.double())  # (n,)
    return tuple((100 * cosine.clamp(min=0)).tolist())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CLIPScore:
    """100 max(cos, 0) of image and prompt, mean over images, named after its backbone: `clip_score[emoji]`.

    On torchmetrics' scale, not Hessel's 2.5 max(cos, 0), and with no prefix before the prompt. Scores of
    different backbones do not compare. difference: to the dense images of the same keys, bootstrapped in
    pairs.
    """

    backbone: Backbone = EMOJI
    seed: int = 0

    @property
    def name(self) -> str:
        return f"clip_score[{self.backbone.label}]"

    @property
    def better(self) -> dict[str, Better]:
        return {self.name: "higher"}

    def check(self) -> None:
        self.backbone.weights()

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        encoder = self.backbone.load()
        texts = encoder.texts(samples.prompts)
        each = agreement(encoder, samples.images, texts)
        difference = None
        if samples.dense is not None and samples.n > 1:
            difference = paired_difference(each, agreement(encoder, samples.dense, texts), seed=self.seed)
        value, se = float(pooled(each)), standard_error(each)
        return [Score(self.name, "higher", value, se, samples.n, each, difference=difference)]

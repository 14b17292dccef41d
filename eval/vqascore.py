"""VQAScore: whether a vision-language model says that an image shows its prompt (Lin et al. 2024,
arXiv:2404.01291)."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval.facts import Facts
from fovea.eval.network import Device
from fovea.eval.per_image import Judged
from fovea.eval.samples import Batch
from fovea.eval.vision_language import Respondent, load, weights


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class VQAScore(Judged):
    """Probability of the answer Yes to whether the image shows its prompt, averaged over images.

    Scores of different models or questions are not comparable: `vqa_score[Qwen2.5-VL-7B-Instruct]`.

    model: a folder, or `owner/name` in the hub cache, of any chat model for images and text. The authors'
        own, CLIP-FlanT5, is not among transformers' models.
    question: with `{prompt}` in its place.
    answer: of one token.
    difference: to the dense images of the same keys, by paired bootstrap.
    """

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    question: str = 'Does this figure show "{prompt}"? Please answer yes or no.'
    answer: str = "Yes"
    device: Device = "auto"
    seed: int = 0

    facts: ClassVar[Facts] = Facts("VQAScore", "higher", "text", low=0, high=1)

    def __post_init__(self):
        if self.question.count("{prompt}") != 1:
            raise ValueError(f"question={self.question!r}: must have {{prompt}} once")

    @property
    def name(self) -> str:
        return f"vqa_score[{Path(self.model).name}]"

    def respondent(self) -> Respondent:
        return load(self.model, "model", self.device)

    def check(self) -> None:
        weights(self.model, "model")

    @property
    def identity(self) -> dict[str, Any]:
        return {"question": self.question, "answer": self.answer, **self.respondent().identity}

    def figures(self, batch: Batch) -> list[float]:
        respondent = self.respondent()
        questions = [self.question.replace("{prompt}", prompt) for prompt in batch.prompts]
        return [
            respondent.probability(image, question, self.answer)
            for image, question in zip(batch.images, questions, strict=True)
        ]

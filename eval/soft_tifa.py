"""Soft-TIFA, GenEval 2's score: how surely a vision-language model sees each thing that a prompt asks for
(Kamath et al. 2025, arXiv:2512.16853)."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Samples, Score, quality
from fovea.eval.facts import Facts
from fovea.eval.network import Device
from fovea.eval.per_image import Single, mean_score
from fovea.eval.prompt_data import PromptLine, by_prompt, check_prompts, published
from fovea.eval.samples import Batch
from fovea.eval.vision_language import Respondent, load, weights
from fovea.eval.weights import digest

YES = ("Yes", "yes", " Yes", " yes")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FETCH = "geneval2_data.jsonl of https://github.com/facebookresearch/GenEval2"


class Questions(PromptLine):
    """A line of geneval2_data.jsonl: pairs of a question about the image and its right answer."""

    vqa_list: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]


@lru_cache(maxsize=4)
def questions(file: Path) -> dict[str, Questions]:
    """Read geneval2_data.jsonl, by prompt. Raises Unavailable."""
    return by_prompt(file, Questions)


def spellings(question: str, answer: str) -> Sequence[str]:
    """Return the replies that count as the right answer: a number as word or numeral, or else yes."""
    if not question.startswith("How many"):
        return YES
    numeral = [str(NUMBERS.index(answer.lower()) + 1)] if answer.lower() in NUMBERS else []
    return [space + word for word in (answer, answer.capitalize(), *numeral) for space in ("", " ")]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SoftTIFA(Single):
    """Probability of the right answers to questions about what a prompt asks for, one question for each
    object, attribute, count and relation.

    `soft_tifa` is their geometric mean over an image's questions, which tells whether all is there;
    `soft_tifa_am` their arithmetic mean. Both are averaged over images. Scores of different models are not
    comparable, and are named after them: `soft_tifa[Qwen3-VL-8B-Instruct]`.

    model: a folder, or `owner/name` in the hub cache, of any chat model for images and text.
    metadata: the file of prompts=geneval2, which has the questions.
    difference: to the dense images of the same keys, by paired bootstrap.
    """

    model: str = "Qwen/Qwen3-VL-8B-Instruct"
    metadata: Path = Path("data/prompts/geneval2_data.jsonl")
    device: Device = "auto"
    seed: int = 0

    facts: ClassVar[Facts] = Facts("Soft-TIFA", "higher", "text", low=0, high=1)

    @property
    def name(self) -> str:
        return f"soft_tifa[{Path(self.model).name}]"

    @property
    def scores(self) -> dict[str, Facts]:
        arithmetic = Facts("Soft-TIFA, arithmetic", "higher", "text", low=0, high=1, hidden=True)
        return {self.name: self.facts, self.name.replace("soft_tifa", "soft_tifa_am", 1): arithmetic}

    def respondent(self) -> Respondent:
        return load(self.model, "model", self.device)

    def file(self) -> Path:
        return published(self.metadata, FETCH)

    def check(self) -> None:
        questions(self.file())
        weights(self.model, "model")

    @property
    def identity(self) -> dict[str, Any]:
        return {"questions": digest(self.file()), **self.respondent().identity}

    def compute(self, batch: Batch) -> dict[str, Tensor]:
        """Return the means of each image, (b,), in the order of `scores`: geometric, arithmetic."""
        every = questions(self.file())
        found = [
            self.answered(image, every[prompt].vqa_list)
            for prompt, image in zip(batch.prompts, batch.images, strict=True)
        ]
        geometric = torch.stack([each.log().mean().exp() for each in found])
        return {"geometric": geometric, "arithmetic": torch.stack([each.mean() for each in found])}

    def answered(self, image: Tensor, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the probability of the right answer to each question."""
        respondent = self.respondent()
        right = [
            respondent.probability_of_any(
                image, f"{question} Answer in one word.", spellings(question, answer)
            )
            for question, answer in pairs
        ]
        return torch.tensor(right, dtype=torch.float64)

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        every = questions(self.file())
        check_prompts(samples.prompts, every, "GenEval 2", f"prompts=geneval2 n={len(every)}")
        own = samples.rows(self)
        dense = None if samples.baseline is None else samples.baseline.rows(self)
        return [
            mean_score(
                name,
                facts,
                own[mean].tensor().tolist(),
                samples.prompts,
                None if dense is None else dense[mean].tensor().tolist(),
                self.seed,
            )
            for (name, facts), mean in zip(self.scores.items(), ("geometric", "arithmetic"), strict=True)
        ]

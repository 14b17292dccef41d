"""GenEval: whether the objects that a prompt names are in the image (Ghosh et al. 2023, arXiv:2310.11513)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import normalize

from fovea.eval import Samples, Score, mask2former, quality
from fovea.eval.backbone import Backbone
from fovea.eval.encoder import TextEncoder, as_picture
from fovea.eval.facts import Facts
from fovea.eval.geneval_tasks import KINDS, TASKS, Colours, Seen, correct, tasks
from fovea.eval.network import Device
from fovea.eval.per_image import Single, mean_score
from fovea.eval.prompt_data import check_prompts, published
from fovea.eval.samples import Batch
from fovea.eval.weights import digest

SURE, SURE_TO_COUNT = 0.3, 0.9  # least score of a detected object, and where objects are counted
MOST = 16  # objects of a class
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = (
    *("a photo of a {colour} {kind}", "a photo of a {colour}-colored {kind}"),
    "a photo of a {colour} object",
)
FETCH = "prompts/evaluation_metadata.jsonl of https://github.com/djghosh13/geneval"
GREY = "#999"  # behind an object whose colour is asked for


def objects(found: mask2former.Instances, least: float) -> dict[str, list[Seen]]:
    """Return the objects with scores above `least` by class, the surest first."""
    by_kind: dict[str, list[Seen]] = {}
    for kind, score, box, mask in zip(*found, strict=True):
        group = by_kind.setdefault(KINDS[kind], [])
        if score > least and len(group) < MOST:
            group.append(Seen(box.numpy(), mask.numpy()))
    return by_kind


def colours_in(image: Image.Image, encoder: TextEncoder) -> Colours:
    """Return a function that names the colours of objects in the image by CLIP, on grey and cut out."""
    blank = Image.new("RGB", image.size, GREY)

    def cut_out(one: Seen) -> Image.Image:
        left, top, right, bottom = one.box.tolist()
        return Image.composite(image, blank, Image.fromarray(one.mask)).crop((left, top, right, bottom))

    def colours(group: Sequence[Seen], kind: str) -> list[str]:
        features = normalize(encoder.pictures(map(cut_out, group))["features"])
        return [COLOURS[i] for i in (features @ _named(encoder, kind).T).argmax(1)]

    return colours


@lru_cache(maxsize=len(KINDS))
def _named(encoder: TextEncoder, kind: str) -> Tensor:
    """Return the text features (colours, d) of a class's colours, each the mean over TEMPLATES."""
    texts = [text.format(colour=colour, kind=kind) for colour in COLOURS for text in TEMPLATES]
    features = normalize(encoder.texts(texts)).unflatten(0, (len(COLOURS), len(TEMPLATES)))
    return normalize(features.mean(1))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GenEval(Single):
    """Share of images with all that their prompt asks for, averaged over GenEval's six tasks.

    The overall score `geneval` needs images of all prompts in `metadata`; those of its tasks,
    `geneval[counting]` and so on, of those prompts only.

    model: Mask2Former with Swin-S in transformers' layout. The authors use mmdet's weights of the same
        network: compare scores of one detector only.
    backbone: CLIP model that names colours.
    metadata: the file of prompts=geneval, which says what each prompt asks for.
    difference: to the dense images of the same keys, by paired bootstrap.
    """

    model: str = "facebook/mask2former-swin-small-coco-instance"
    backbone: Backbone = Backbone("ViT-L-14-quickgelu", "openai", "ViT-L-14/openai")
    metadata: Path = Path("data/prompts/evaluation_metadata.jsonl")
    device: Device = "auto"
    seed: int = 0

    facts: ClassVar[Facts] = Facts("GenEval", "higher", "text", low=0, high=1)
    name: ClassVar[str] = "geneval"

    @property
    def scores(self) -> dict[str, Facts]:
        hidden = Facts("GenEval", "higher", "text", low=0, high=1, hidden=True)
        return {self.name: self.facts, **{f"{self.name}[{tag}]": hidden for tag in TASKS}}

    def file(self) -> Path:
        return published(self.metadata, FETCH)

    def check(self) -> None:
        tasks(self.file())
        mask2former.weights(self.model, "model")
        self.backbone.weights()

    @property
    def identity(self) -> dict[str, Any]:
        detector, encoder = self.detector(), self.backbone.load()
        return {
            "detector": detector.identity,
            "colours": encoder.identity,
            "tasks": digest(self.file()),
        }

    def detector(self) -> mask2former.Detector:
        return mask2former.load(self.model, "model", self.device)

    def figures(self, batch: Batch) -> list[float]:
        """Return 1 for each correct image, else 0."""
        every, detector, encoder = tasks(self.file()), self.detector(), self.backbone.load()
        right = []
        for prompt, image in zip(batch.prompts, batch.images, strict=True):
            task = every[prompt]
            seen = objects(detector(image, SURE), SURE_TO_COUNT if task.tag == "counting" else SURE)
            right.append(float(correct(task, seen, colours_in(as_picture(image), encoder))))
        return right

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        every = tasks(self.file())
        check_prompts(samples.prompts, every, "GenEval", "prompts=geneval n=553 seeds=[0,1,2,3]")
        each = np.array(self.each(samples))
        dense = None if samples.baseline is None else np.array(self.each(samples.baseline))
        prompts = np.array(samples.prompts)
        tags = np.array([every[prompt].tag for prompt in samples.prompts])
        per_task = Counter(task.tag for task in every.values())
        weights = np.array([len(every) / (len(per_task) * per_task[tag]) for tag in tags])

        def score(name: str, of: NDArray, weights: NDArray | float = 1.0) -> Score:
            own = (each * weights)[of].tolist()
            other = None if dense is None else (dense * weights)[of].tolist()
            return mean_score(name, self.scores[name], own, prompts[of].tolist(), other, self.seed)

        of_prompt = Counter(samples.prompts)
        fewest, most = min(of_prompt.values()), max(of_prompt.values())
        if missing := len(every) - len(of_prompt):
            reason = f"it is over all {len(every)} prompts, and {missing} have no image"
            found = [self._unavailable(self.name, samples.n, reason, f"n={len(every)}")]
        elif fewest < most:  # the tasks' weights are of as many images of every prompt
            reason = f"it is over as many images of every prompt, and some have {fewest}, others {most}"
            found = [self._unavailable(self.name, samples.n, reason, "make the images that are missing")]
        else:
            found = [score(self.name, np.full(samples.n, True), weights)]
        for tag in TASKS:
            of, name = tags == tag, f"{self.name}[{tag}]"
            if of.any():
                found.append(replace(score(name, of), per_image=None))
            else:
                reason = "there are no images of its prompts"
                found.append(self._unavailable(name, samples.n, reason, f"n={len(every)}"))
        return found

    def _unavailable(self, name: str, n: int, reason: str, remedy: str) -> Score:
        return Score(name, self.scores[name], None, None, n, unavailable=reason, remedy=remedy)

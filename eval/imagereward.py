"""ImageReward: human preference for an image given its prompt (Xu et al. 2023, arXiv:2304.05977)."""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import torch
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.encoder import as_picture
from fovea.eval.facts import Facts
from fovea.eval.hub import folder, single
from fovea.eval.network import CENTRE, SPREAD, Device, in_batches, place
from fovea.eval.per_image import Judged
from fovea.eval.samples import Batch
from fovea.eval.weights import digest

REPOSITORY, CACHES = "THUDM/ImageReward", (Path("~/.cache/ImageReward"),)
WORDS = ("vocab.txt", "tokenizer.json")
LENGTH = 35  # tokens of a prompt; the rest is truncated


class Loaded(NamedTuple):
    network: Any
    tokenizer: Any
    device: str


@lru_cache(maxsize=1)
def load(weights: Path, words: Path, device: Device) -> Loaded:
    from transformers import BertTokenizer

    from fovea.eval.blip import RewardNetwork

    try:
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
        tokenizer = BertTokenizer.from_pretrained(words, local_files_only=True, do_lower_case=True)
    except Exception as e:  # invalid files fail in torch, pickle, json or tokenizers
        raise Unavailable(f"cannot load {weights} or {words} ({e})", "check or fetch the files again") from e
    return Loaded(RewardNetwork(tensors).to(place(device)), tokenizer, place(device))


def pixels(image: Image.Image, side: int) -> Tensor:
    """Return (3, side, side): shorter side resized with PIL, centre crop, normalised as for CLIP."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    resized = F.resize(cast(Any, image), [side], InterpolationMode.BICUBIC)
    square: Any = F.center_crop(resized, [side, side])
    return F.normalize(F.to_tensor(square), [*CENTRE], [*SPREAD])


def rewards(loaded: Loaded, prompts: Sequence[str], batch: int, images: Tensor) -> tuple[float, ...]:
    """Return one reward for each prompt and image, uint8 (n, 3, H, W)."""
    words = loaded.tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )

    def run(images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        pictures = map(as_picture, images)
        batch = torch.stack([pixels(picture, loaded.network.side) for picture in pictures])
        return loaded.network(*(x.to(loaded.device) for x in (batch, ids, mask)))

    return tuple(in_batches(run, len(images), batch, images, words.input_ids, words.attention_mask).tolist())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ImageReward(Judged):
    """Reward of image and prompt, averaged over images; mean 0 and deviation 1 on the authors' set.

    weights: ImageReward.pt as published, a path or in the caches of the hub and the image-reward package.
    tokenizer: bert-base-uncased, a folder or in the hub cache.
    difference: to the dense images of the same keys, by paired bootstrap.
    """

    weights: Path = Path("ImageReward.pt")
    tokenizer: str = "google-bert/bert-base-uncased"
    device: Device = "auto"
    batch: Annotated[int, Field(ge=1)] = 16
    seed: int = 0

    facts: ClassVar[Facts] = Facts("ImageReward", "higher", "preference")

    name: ClassVar[str] = "image_reward"

    def files(self) -> tuple[Path, Path]:
        """Return the weight file and the tokenizer folder. Raises Unavailable."""
        weights = single(self.weights, REPOSITORY, CACHES, "weights")
        with suppress(Unavailable):  # the repository's former name
            return weights, folder(self.tokenizer.removeprefix("google-bert/"), WORDS, "tokenizer")
        return weights, folder(self.tokenizer, WORDS, "tokenizer")

    def check(self) -> None:
        self.files()

    @property
    def identity(self) -> dict[str, Any]:
        weights, words = self.files()
        return {
            "weights": digest(weights),
            "words": {f.name: digest(f) for f in map(words.joinpath, WORDS) if f.is_file()},
        }

    def figures(self, batch: Batch) -> tuple[float, ...]:
        return rewards(load(*self.files(), self.device), batch.prompts, self.batch, batch.images)

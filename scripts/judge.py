"""clip_emoji as a judge of pictures: names the drawings in them.

A single drawing is named from the whole picture. With two drawings, the features of the whole picture mostly
reflect the larger one, so the name probabilities of nine windows are added up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from scripts import emoji, loop
from scripts.train_clip import DRAWN, NAMES, SIZE, shares

WINDOW = 72 / 128  # of the side; with 3 x 3 positions, the size that recognises couples best


@dataclass(frozen=True)
class Judge:
    """The model as its users load it, and the drawings to paint scenes with."""

    model: Any
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenize: Callable[[list[str]], torch.Tensor]
    pictures: dict[str, Image.Image]

    @classmethod
    def load(cls, folder: Path, pictures: dict[str, Image.Image]) -> "Judge":
        loaded: Any = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=loop.device())
        tokenize: Any = open_clip.get_tokenizer(f"local-dir:{folder}")
        return cls(loaded[0].eval(), loaded[2], tokenize, pictures)

    def paint(self, scene: emoji.Scene, size: int = SIZE) -> Image.Image:
        return Image.fromarray(emoji.paint(scene, self.pictures, size))

    @torch.no_grad()
    def look(self, images: list[Image.Image]) -> torch.Tensor:
        """Return unit feature vectors (n, 64) of the pictures."""
        blocks = (images[i : i + 50] for i in range(0, len(images), 50))
        tensors = (torch.stack([self.preprocess(image) for image in block]) for block in blocks)
        return torch.cat(
            [self.model.encode_image(x.to(loop.device()), normalize=True).cpu() for x in tensors]
        )

    def see(self, scenes: list[emoji.Scene], size: int = SIZE) -> torch.Tensor:
        """Return unit feature vectors (n, 64) of the scenes, painted at `size` px."""
        return self.look([self.paint(scene, size) for scene in scenes])

    @torch.no_grad()
    def read(self, texts: list[str]) -> torch.Tensor:
        """Return unit feature vectors (n, 64) of the texts."""
        blocks = self.tokenize(texts).to(loop.device()).split(256)
        return torch.cat([self.model.encode_text(ids, normalize=True).cpu() for ids in blocks])

    def windows(self, images: list[Image.Image]) -> torch.Tensor:
        """Return the probability of each name (n, 60), summed over nine windows of each picture."""
        crops = [crop for image in images for crop in windows(image)]
        scale = self.model.logit_scale.exp().item()
        fits = (scale * self.look(crops) @ self.read(NAMES).T).softmax(1)
        return fits.unflatten(0, (len(images), -1)).sum(1)


def windows(image: Image.Image) -> list[Image.Image]:
    side = round(WINDOW * image.width)
    places = np.linspace(0, image.width - side, 3).round().astype(int).tolist()
    return [image.crop((x, y, x + side, y + side)) for y in places for x in places]


def named(judge: Judge, images: list[Image.Image], scenes: list[emoji.Scene]) -> torch.Tensor:
    """Return (n, 2) for pictures of one drawing: is its concept recognised among 60, and its concept and
    style among 240?"""
    found = judge.look(images)
    wanted = [share.argmax(1) for share in shares(scenes)]
    predicted = [(found @ judge.read(texts).T).argmax(1) for texts in (NAMES, DRAWN)]
    return torch.stack([a == b for a, b in zip(predicted, wanted, strict=True)], 1)


def best_two(fits: torch.Tensor, scenes: list[emoji.Scene]) -> torch.Tensor:
    """Return (n,): are the two best-fitting names, of fits (n, 60), those of the scene?"""
    wanted = shares(scenes)[0] > 0
    return (torch.zeros_like(wanted).scatter(1, fits.topk(2).indices, True) == wanted).all(1)


def both(judge: Judge, images: list[Image.Image], scenes: list[emoji.Scene]) -> torch.Tensor:
    """Return (n,) for pictures of two drawings: are the two names that fit their windows best the scene's?"""
    return best_two(judge.windows(images), scenes)

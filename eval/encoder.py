"""A network that gives features of images, by name, and of texts if it reads them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fovea.eval.samples import Batch

Network = Callable[[Tensor], Mapping[str, Tensor]]  # (b, ...) -> {name: (b, d)}
Prepare = Callable[[Tensor], Tensor]  # uint8 (3, H, W) -> (3, h, w)


class Parts(NamedTuple):
    """network: (b, 3, h, w) -> {name: (b, d)}. prepare: of an image, what goes into it. Where texts are read,
    towers: the network of two halves, `encode_image` and `encode_text`; tokenizer: of n texts (n, tokens)."""

    network: Network
    prepare: Prepare
    towers: Any = None
    tokenizer: Any = None


class Encoder:
    """Images to named features, float32 (n, d) on the CPU, not normalised. Each is prepared alone, so that no
    feature depends on what else is in the batch or how large it is.

    load: gives the parts, when the first image is looked at. identity: all that the features depend on
    besides the images, as JSON. module: whose code they depend on. batch: images or texts per call.
    """

    paired = False

    def __init__(
        self,
        load: Callable[[], Parts],
        identity: dict[str, Any],
        device: str,
        batch: int,
        module: str = __name__,
    ):
        self.load, self.identity = load, identity
        self.device, self.batch, self.module = device, batch, module

    @cached_property
    def parts(self) -> Parts:
        return self.load()

    def images(self, images: Tensor) -> dict[str, Tensor]:
        """Of uint8 (n, 3, H, W)."""
        return self.run(self.parts.network, map(self.parts.prepare, images))

    def pictures(self, pictures: Iterable[Image.Image]) -> dict[str, Tensor]:
        """Of pictures of any sizes."""
        tensors = (torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in pictures)
        return self.run(self.parts.network, map(self.parts.prepare, tensors))

    def compute(self, batch: Batch) -> dict[str, Tensor]:
        return self.images(batch.images)

    @torch.inference_mode()
    def run(
        self, network: Callable[[Tensor], Mapping[str, Tensor]], inputs: Iterable[Tensor]
    ) -> dict[str, Tensor]:
        # cuDNN's TF32 is on by default, and moves the third digit
        with torch.backends.flags(fp32_precision="ieee"):
            found = [network(x.to(self.device)) for x in stacks(iter(inputs), self.batch)]
            return {name: torch.cat([f[name].float().cpu() for f in found]) for name in found[0]}


class TextEncoder(Encoder):
    """A network of two halves. Feature `features`."""

    @property
    def towers(self) -> Any:
        return self.parts.towers

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """n texts -> (n, d). What exceeds the model's context is cut off, as its tokenizer does."""

        def features(x: Tensor) -> dict[str, Tensor]:
            return {"texts": self.towers.encode_text(x)}

        return self.run(features, self.parts.tokenizer(list(prompts)))["texts"]


def two_towers(
    towers: Any, picture: Callable[[Image.Image], Tensor], tokenizer: Callable[[list[str]], Tensor]
) -> Parts:
    """picture: prepares one, (3, h, w)."""

    def features(x: Tensor) -> dict[str, Tensor]:
        return {"features": towers.encode_image(x)}

    return Parts(features, of_picture(picture), towers, tokenizer)


def cosines(encoder: TextEncoder, batch: Batch) -> Tensor:
    """(b,) of the features of each image and of its prompt."""
    images, texts = batch.of(encoder)["features"], encoder.texts(batch.prompts)
    return cosine_similarity(images.double(), texts.double())


def of_picture(prepare: Callable[[Image.Image], Tensor]) -> Prepare:
    """What prepares a picture, of an image as a tensor."""
    return lambda image: prepare(as_picture(image))


def as_picture(image: Tensor) -> Image.Image:
    """Of uint8 (3, H, W)."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy(force=True))


def stacks(prepared: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while some := [*islice(prepared, size)]:
        yield torch.stack(some)

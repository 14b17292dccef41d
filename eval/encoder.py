"""Networks that compute named features of images, and of texts if they have a text tower."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fovea.eval.network import exact_float32
from fovea.eval.samples import Batch

Network = Callable[[Tensor], Mapping[str, Tensor]]  # (b, ...) -> {name: (b, d)}
Prepare = Callable[[Tensor], Tensor]  # uint8 (3, H, W) -> (3, h, w)


class Parts(NamedTuple):
    """The parts of an encoder.

    network: (b, 3, h, w) -> {name: (b, d)}.
    prepare: preprocesses one image for the network.
    towers: for texts: module with `encode_image` and `encode_text`.
    tokenizer: for texts: n texts -> (n, tokens).
    """

    network: Network
    prepare: Prepare
    towers: Any = None
    tokenizer: Any = None


class Encoder:
    """Maps images to named features, float32 (n, d) on the CPU, not normalised.

    Each image is preprocessed separately, so features do not depend on the batch.

    load: returns the parts; called for the first image.
    identity: everything the features depend on besides the images, as JSON.
    module: module whose code they depend on.
    batch: images or texts per call.
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
        """Features of uint8 (n, 3, H, W)."""
        return self.run(self.parts.network, map(self.parts.prepare, images))

    def pictures(self, pictures: Iterable[Image.Image]) -> dict[str, Tensor]:
        """Features of PIL images of any sizes."""
        tensors = (torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in pictures)
        return self.run(self.parts.network, map(self.parts.prepare, tensors))

    def compute(self, batch: Batch) -> dict[str, Tensor]:
        return self.images(batch.images)

    @torch.inference_mode()
    def run(
        self, network: Callable[[Tensor], Mapping[str, Tensor]], inputs: Iterable[Tensor]
    ) -> dict[str, Tensor]:
        with exact_float32():
            found = [network(x.to(self.device)) for x in stacks(iter(inputs), self.batch)]
            return {name: torch.cat([f[name].float().cpu() for f in found]) for name in found[0]}


class TextEncoder(Encoder):
    """A network with image and text towers. Feature `features`."""

    @property
    def towers(self) -> Any:
        return self.parts.towers

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Encode n texts as (n, d), truncated to the model's context by its tokenizer."""

        def features(x: Tensor) -> dict[str, Tensor]:
            return {"texts": self.towers.encode_text(x)}

        return self.run(features, self.parts.tokenizer(list(prompts)))["texts"]


def two_towers(
    towers: Any, picture: Callable[[Image.Image], Tensor], tokenizer: Callable[[list[str]], Tensor]
) -> Parts:
    """Return the parts of a two-tower network. picture: preprocesses one PIL image to (3, h, w)."""

    def features(x: Tensor) -> dict[str, Tensor]:
        return {"features": towers.encode_image(x)}

    return Parts(features, of_picture(picture), towers, tokenizer)


def cosines(encoder: TextEncoder, batch: Batch) -> Tensor:
    """Return the cosine (b,) between the features of each image and its prompt."""
    images, texts = batch.of(encoder)["features"], encoder.texts(batch.prompts)
    return cosine_similarity(images.double(), texts.double())


def of_picture(prepare: Callable[[Image.Image], Tensor]) -> Prepare:
    """Adapt preprocessing of a PIL image to an image tensor."""
    return lambda image: prepare(as_picture(image))


def as_picture(image: Tensor) -> Image.Image:
    """Convert uint8 (3, H, W) to a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy(force=True))


def stacks(prepared: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while some := [*islice(prepared, size)]:
        yield torch.stack(some)

"""A network that gives features of images, by name; what FID, KID and their kin stand on."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

KEPT = 4  # sets of images whose features are remembered: a method's and the dense model's, for all metrics


class Extractor:
    """Images to named features, float32 (n, d) on the CPU. Each is prepared alone, so that no feature depends
    on what else is in the batch or how large it is.

    network: (b, 3, h, w) -> {name: (b, d)}. prepare: uint8 (3, H, W) -> (3, h, w). identity: all that the
    features depend on besides the images, as JSON.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Mapping[str, Tensor]],
        prepare: Callable[[Tensor], Tensor],
        identity: dict[str, Any],
        device: str,
        batch: int,
    ):
        self.network, self.prepare, self.identity = network, prepare, identity
        self.device, self.batch = device, batch
        self.seen: dict[str, dict[str, Tensor]] = {}

    def images(self, images: Tensor) -> dict[str, Tensor]:
        """Of uint8 (n, 3, H, W). Remembers the last few sets by their content."""
        content = np.ascontiguousarray(images.numpy(force=True))
        key = f"{images.shape}{hashlib.sha256(content.data).hexdigest()}"
        if key not in self.seen:
            self.seen = dict([*self.seen.items()][1 - KEPT :])
            self.seen[key] = self.run(images)
        return self.seen[key]

    def pictures(self, pictures: Iterable[Image.Image]) -> dict[str, Tensor]:
        """Of pictures of any sizes."""
        return self.run(torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in pictures)

    @torch.inference_mode()
    def run(self, images: Iterable[Tensor]) -> dict[str, Tensor]:
        # cuDNN's TF32 is on by default, and moves the third digit
        with torch.backends.flags(fp32_precision="ieee"):
            found = [self.network(x.to(self.device)) for x in batches(map(self.prepare, images), self.batch)]
        return {name: torch.cat([f[name].float().cpu() for f in found]) for name in found[0]}


def batches(prepared: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while some := [*islice(prepared, size)]:
        yield torch.stack(some)

"""Images to the 299 x 299 input of the FID Inception, as three lineages of code bring them there.

They disagree by more than acceleration methods do: one set of images blurred four times gave Fréchet
distances of 34, 62 and 68 thousand. So they are never mixed, and every score has the mode in its name.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

Resize = Literal["clean", "legacy_pytorch", "adm"]
SIDE = 299


def clean(image: Tensor) -> Tensor:
    """clean-fid's (Parmar, arXiv:2104.11222): Pillow's bicubic filter, widened against aliasing, on each
    channel as float32, cut to [0, 255]; (x - 128) / 128. uint8 (3, H, W) -> (3, 299, 299)."""
    channels = [Image.fromarray(c) for c in image.float().numpy(force=True)]
    resized = np.stack([np.asarray(c.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in channels])
    return (torch.from_numpy(resized.clip(0, 255)) - 128) / 128


def legacy_pytorch(image: Tensor) -> Tensor:
    """pytorch-fid's: bilinear between pixel centres, nothing against aliasing, [0, 255] to [-1, 1].

    uint8 (3, H, W) -> (3, 299, 299).
    """
    x = image[None].float() / 255
    return 2 * interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)[0] - 1


def adm(image: Tensor) -> Tensor:
    """The TensorFlow graph's own ResizeBilinear, of the original FID and of ADM (arXiv:2105.05233): output
    pixel i lies at i H / 299, not at pixel centres; (x - 128) / 128. uint8 (3, H, W) -> (3, 299, 299)."""
    return (between(between(image.float(), 2), 1) - 128) / 128


def between(x: Tensor, axis: int) -> Tensor:
    """One axis of x (3, H, W) to 299, in float32 as the graph computes it, so that rounding agrees too."""
    size = x.shape[axis]
    place = torch.arange(SIDE, dtype=torch.float32) * (torch.tensor(size, dtype=torch.float32) / SIDE)
    below = place.long()
    above = (below + 1).clamp(max=size - 1)
    part = (place - below).unflatten(0, (-1, 1) if axis == 1 else (1, -1))
    low, high = x.index_select(axis, below), x.index_select(axis, above)
    return low + (high - low) * part


RESIZES: dict[Resize, Callable[[Tensor], Tensor]] = {
    "clean": clean,
    "legacy_pytorch": legacy_pytorch,
    "adm": adm,
}

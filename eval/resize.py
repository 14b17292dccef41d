"""Resize images to the 299 x 299 input of the FID Inception, as three different code bases do.

They differ by more than acceleration methods do: one set of images blurred four times gave Fréchet distances
of 34, 62 and 68 thousand. They are therefore never mixed, and the mode is part of each score's name.
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
    """clean-fid (Parmar, arXiv:2104.11222): Pillow's antialiased bicubic filter per float32 channel.

    Clipped to [0, 255]; (x - 128) / 128. uint8 (3, H, W) -> (3, 299, 299).
    """
    channels = [Image.fromarray(c) for c in image.float().numpy(force=True)]
    resized = np.stack([np.asarray(c.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in channels])
    return (torch.from_numpy(resized.clip(0, 255)) - 128) / 128


def legacy_pytorch(image: Tensor) -> Tensor:
    """pytorch-fid: bilinear between pixel centres without antialiasing, [0, 255] to [-1, 1].

    uint8 (3, H, W) -> (3, 299, 299).
    """
    x = image[None].float() / 255
    return 2 * interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)[0] - 1


def adm(image: Tensor) -> Tensor:
    """ResizeBilinear of the TensorFlow graph, as in the original FID and ADM (arXiv:2105.05233).

    Output pixel i lies at i H / 299, not at pixel centres; (x - 128) / 128. uint8 (3, H, W) -> (3, 299, 299).
    """
    return (between(between(image.float(), 2), 1) - 128) / 128


def between(x: Tensor, axis: int) -> Tensor:
    """Resize one axis of x (3, H, W) to 299, in float32 like the graph so that rounding matches."""
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

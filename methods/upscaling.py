"""Upscale images by two, by bicubic interpolation or by a super-resolution network from a file."""

from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

BICUBIC = "bicubic"


def check(upscaler: str) -> None:
    """Raise ValueError unless `upscaler` is "bicubic" or an existing .safetensors file."""
    if upscaler != BICUBIC and not (upscaler.endswith(".safetensors") and Path(upscaler).is_file()):
        raise ValueError(f"upscaler={upscaler}: must be {BICUBIC} or an existing .safetensors file")


@lru_cache(maxsize=1)
def load(upscaler: str) -> Any:
    """Load a super-resolution network from its file; None for "bicubic".

    spandrel recognises the architecture (Real-ESRGAN, SwinIR, DAT, ...) from the names and shapes of the
    weights. No code in the file is executed. ValueError if the file holds no supported network.
    """
    if upscaler == BICUBIC:
        return None
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ImportError:
        raise ValueError(
            f"upscaler={upscaler}: a network needs spandrel; pip install 'fovea[upscaler]'"
        ) from None
    try:
        network = ModelLoader("cpu").load_from_file(upscaler)
    except UnsupportedModelError:
        raise ValueError(
            f"upscaler={upscaler}: holds none of the architectures that spandrel knows"
        ) from None
    if not isinstance(network, ImageModelDescriptor) or network.scale < 2 or network.input_channels != 3:
        raise ValueError(f"upscaler={upscaler}: must hold a network that enlarges images of three channels")
    return network.eval()


def upscale(flow, images: Float[Tensor, "b 3 h w"], upscaler: str) -> Float[Tensor, "b 3 2*h 2*w"]:
    """Return the images, in [0, 1], at twice the size, and register the network's FLOPs with the flow.

    The output of a network with a larger factor is scaled down.
    """
    network, size = load(upscaler), [2 * side for side in images.shape[2:]]
    if network is not None:
        flow.extra_flops.append(partial(flops, upscaler, *images.shape[2:]))
        images = network.to(images.device)(images)
    if [*images.shape[2:]] != size:
        images = F.interpolate(images, size, mode="bicubic", antialias=network is not None)
    return images.clamp(0, 1)


@cache
def flops(upscaler: str, height: int, width: int) -> int:
    """FLOPs of the network for one image, counted on the meta device."""
    from copy import deepcopy

    network = deepcopy(load(upscaler).model).to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, height, width, device="meta", dtype=torch.float32))
    return counter.get_total_flops()

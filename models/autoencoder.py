"""What the families' autoencoders call by different names, from their configs."""

from collections.abc import Mapping
from typing import Any


def factor(config: Mapping[str, Any]) -> int:
    """Pixels to a side of a latent pixel."""
    if "block_out_channels" in config:
        return 2 ** (len(config["block_out_channels"]) - 1)
    return 2 ** len(config["temperal_downsample"])  # Qwen-Image's; diffusers' spelling


def channels(config: Mapping[str, Any]) -> int:
    """Channels of the latent."""
    return config["latent_channels"] if "latent_channels" in config else config["z_dim"]

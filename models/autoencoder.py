"""Properties of the families' autoencoders, which have different config keys."""

from collections.abc import Mapping
from typing import Any


def vae_scale_factor(config: Mapping[str, Any]) -> int:
    """Return the side of a latent pixel in pixels."""
    if "block_out_channels" in config:
        return 2 ** (len(config["block_out_channels"]) - 1)
    return 2 ** len(config["temperal_downsample"])  # Qwen-Image; the spelling is diffusers'


def latent_channels(config: Mapping[str, Any]) -> int:
    """Return the number of latent channels."""
    return config["latent_channels"] if "latent_channels" in config else config["z_dim"]

"""Scores (b, m) of half-resolution tokens; those with the highest are refined to full resolution first."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.methods.tokens import uniform
from fovea.models.tokens import unpack

Selection = Literal["edges", "latent_gradient", "variance", "random"]


def scores(flow, x, grid, selection: Selection, as_released: bool = False) -> Tensor:
    """Score an image estimate x (b, m, c) on `grid`. Ties are broken by each image's own generator."""
    tie = uniform(flow, x)
    if selection == "random":
        return tie
    if selection == "edges":  # each edge pixel adds 255
        return edges(flow, x, grid, as_released).to(x.device) + (1e-6 if as_released else 1) * tie
    p = round(flow.pixels**0.5)
    latent = unpack(x.float(), grid, p)
    field = gradient(latent) if selection == "latent_gradient" else variance(latent)
    return F.avg_pool2d(field, p).flatten(1) + 1e-6 * tie


def edges(flow, x, grid, as_released: bool = False) -> Tensor:
    """Count Canny edge pixels (thresholds 100 and 200) in each token's patch of the image, as RALU does.

    The image is decoded at half size and converted to grey.

    as_released: the released code clips the decoder's output, which lies in [-1, 1], at 0, and so finds no
        edges in the darker half of the range.
    """
    import cv2  # only needed here

    image = flow.decode(x, grid, raw=True).float()
    grey = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)  # (b, h, w)
    grey = grey if as_released else (grey + 1) / 2
    levels = (grey.clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    edge_maps = torch.stack([torch.from_numpy(cv2.Canny(level, 100, 200)) for level in levels]).float()
    cell = edge_maps.shape[1] // grid.rows
    return F.avg_pool2d(edge_maps[:, None], cell, divisor_override=1).flatten(1)  # (b, m)


def gradient(latent: Tensor) -> Tensor:
    """Sobel magnitude of a latent (b, channels, h, w), summed over channels: (b, 1, h, w)."""
    sobel = latent.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([sobel, sobel.T])[:, None].repeat(latent.shape[1], 1, 1, 1)
    padded = F.pad(latent, (1, 1, 1, 1), mode="replicate")
    both = F.conv2d(padded, kernels, groups=latent.shape[1]).unflatten(1, (-1, 2))
    return both.norm(dim=2).sum(1, keepdim=True)


def variance(latent: Tensor) -> Tensor:
    """Variance within 3 x 3 latent pixels, summed over channels: (b, 1, h, w)."""
    padded = F.pad(latent, (1, 1, 1, 1), mode="replicate")
    mean, square = F.avg_pool2d(padded, 3, 1), F.avg_pool2d(padded**2, 3, 1)
    return (square - mean**2).clamp(min=0).sum(1, keepdim=True)

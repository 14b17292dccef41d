"""The resize modes against the code they are named after."""

import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from fovea.eval.resize import RESIZES, adm, clean, legacy_pytorch
from tests.eval.inceptions import noise

SIZES = [(128, 128), (512, 384), (299, 299), (300, 299), (1000, 97)]


def clean_fid(mode, image):
    """clean-fid's resizer, uint8 (3, H, W) -> float32 (3, 299, 299) in [0, 255]."""
    from cleanfid.resize import build_resizer

    with warnings.catch_warnings():  # it changes the filters, and Pillow's mode= has been deprecated
        warnings.simplefilter("ignore")
        return torch.from_numpy(build_resizer(mode)(image.permute(1, 2, 0).numpy())).permute(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
def test_clean_is_clean_fids_to_the_bit(size):
    (image,) = noise(1, *size)
    assert torch.equal(clean(image), (clean_fid("clean", image) - 128) / 128)


@pytest.mark.parametrize("size", SIZES)
def test_legacy_pytorch_is_pytorch_fids_to_the_bit_and_clean_fids_to_rounding(size):
    (image,) = noise(1, *size)
    inside = interpolate(image[None] / 255, size=(299, 299), mode="bilinear", align_corners=False)
    assert torch.equal(legacy_pytorch(image), (2 * inside - 1)[0])
    assert (legacy_pytorch(image) - (clean_fid("legacy_pytorch", image) / 127.5 - 1)).abs().max() < 1e-6


def tensorflow(x, n):
    """ResizeBilinear of one channel without align_corners or half-pixel centres, a pixel at a time."""
    (height, width), out = x.shape, np.empty((n, n), np.float32)
    down, across = np.float32(height) / np.float32(n), np.float32(width) / np.float32(n)
    for i in range(n):
        y = np.float32(i) * down
        top, bottom, dy = int(y), min(int(y) + 1, height - 1), y - np.float32(int(y))
        for j in range(n):
            z = np.float32(j) * across
            left, right, dx = int(z), min(int(z) + 1, width - 1), z - np.float32(int(z))
            above = x[top, left] + (x[top, right] - x[top, left]) * dx
            below = x[bottom, left] + (x[bottom, right] - x[bottom, left]) * dx
            out[i, j] = above + (below - above) * dy
    return out


@pytest.mark.parametrize("size", [(128, 160), (412, 333)])
def test_adm_is_tensorflows_to_the_bit(size):
    (image,) = noise(1, *size)
    expected = np.stack([tensorflow(c, 299) for c in image.float().numpy()])
    assert np.array_equal(adm(image).numpy(), (expected - 128) / 128)


def test_at_twice_the_side_adm_takes_every_other_pixel():
    (image,) = noise(1, 598, 598)
    assert torch.equal(adm(image), (image[:, ::2, ::2].float() - 128) / 128)


def test_at_the_networks_own_size_nothing_is_resized():
    (image,) = noise(1, 299, 299)
    for mode, resize in RESIZES.items():
        expected = image / 127.5 - 1 if mode == "legacy_pytorch" else (image.float() - 128) / 128
        assert (resize(image) - expected).abs().max() < 1e-6


def test_modes_differ_by_far_more_than_rounding():
    (image,) = noise(1, 512, 512)
    found = {mode: resize(image) for mode, resize in RESIZES.items()}
    for mode, other in (("clean", "adm"), ("adm", "legacy_pytorch"), ("clean", "legacy_pytorch")):
        assert (found[mode] - found[other]).abs().mean() > 0.01
    assert all(x.shape == (3, 299, 299) and x.dtype == torch.float32 for x in found.values())

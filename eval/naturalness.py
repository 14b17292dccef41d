"""Natural scene statistics used by NIQE (Mittal et al. 2013, section II).

For each block of 96 x 96 pixels, at full and half size: shape and scale of the locally normalised luminance,
and shape, mean and scales of its products with neighbouring pixels. Computed in float64.

In flat areas pixels equal their local mean up to rounding, whose sign would determine on which side of zero
they count; here they count on neither, whereas other implementations depend on rounding. Agreement with
those, and between them, is five digits on photographs without saturated areas, three on most others, and one
or two on drawings.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

BLOCK = 96  # side in pixels
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below and diagonal, wrapping around the block
LUMA = {
    "gray": ((0.299, 0.587, 0.114), 0.0),  # the authors' release and pyiqa: MATLAB's rgb2gray
    "ycbcr": ((65.481 / 255, 128.553 / 255, 24.966 / 255), 16.0),  # super-resolution papers and BasicSR
}
ROUNDING = 1e-9  # smaller values count as zero; one grey level in a corner of the window gives 1e-4
HALF = (
    -0.01171875,
    -0.03515625,
    0.11328125,
    0.43359375,
)  # one half of the symmetric cubic kernel


def luminance(image: Tensor, luma: str) -> Tensor:
    """Convert uint8 (3, H, W) to integer-valued float64 (1, 1, h, w), cropped to whole blocks."""
    weights, offset = LUMA[luma]
    y = (torch.tensor(weights, dtype=torch.float64) @ image.cpu().double().flatten(1) + offset).round()
    height, width = image.shape[1:]
    return y.view(1, 1, height, width)[..., : height // BLOCK * BLOCK, : width // BLOCK * BLOCK]


def local(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of a luminance in a 7 x 7 Gaussian window with sigma 7/6 (eqs. 2 and 3)."""
    g = torch.exp(-0.5 * (torch.arange(-3, 4, dtype=torch.float64) / (7 / 6)) ** 2)
    window = (g[:, None] * g / g.sum() ** 2)[None, None]
    mean, square = (conv2d(pad(x, (3, 3, 3, 3), mode="replicate"), window) for x in (y, y * y))
    return mean, (square - mean**2).abs().sqrt()


def halved(y: Tensor) -> Tensor:
    """Halve the size like MATLAB's imresize: a cubic kernel stretched to 8 taps, mirrored borders."""
    row = torch.tensor([*HALF, *HALF[::-1]], dtype=torch.float64)
    for dim, kernel in ((2, row.view(1, 1, 8, 1)), (3, row.view(1, 1, 1, 8))):
        y = torch.cat([y.narrow(dim, 0, 3).flip(dim), y, y.narrow(dim, y.shape[dim] - 3, 3).flip(dim)], dim)
        y = conv2d(y, kernel, stride=(2, 1) if dim == 2 else (1, 2))
    return y


@lru_cache(maxsize=1)
def shapes() -> tuple[Tensor, Tensor]:
    """Return candidate shapes of a generalised Gaussian (9801,), and E|x|^2 / E[x^2] for each."""
    a = torch.linspace(0.2, 10, 9801, dtype=torch.float64)
    return a, (2 * torch.lgamma(2 / a) - torch.lgamma(1 / a) - torch.lgamma(3 / a)).exp()


def fitted(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians to x (m, pixels) by moments: shape, left and right scale (m,).

    Equations 7 to 9; NaN if x has only one sign or is zero.
    """
    left, right = (
        (x.square() * side).sum(1).div(side.sum(1)).sqrt() for side in ((x < 0).double(), (x > 0).double())
    )
    skew = left / right
    ratio = x.abs().mean(1) ** 2 / x.square().mean(1) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    a, expected = shapes()
    a = a[(expected - ratio[:, None]).abs().argmin(1)]
    spread = ((torch.lgamma(1 / a) - torch.lgamma(3 / a)) / 2).exp()
    return a, left * spread, right * spread


def in_blocks(x: Tensor, side: int) -> Tensor:
    """Split (1, 1, h, w) into blocks (m, side, side)."""
    return x[0, 0].unfold(0, side, side).unfold(1, side, side).flatten(0, 1)


def features(y: Tensor, block: int) -> Tensor:
    """Return features (m, 18) of the m blocks of a luminance (1, 1, h, w)."""
    mean, deviation = local(y)
    apart = torch.where((y - mean).abs() < ROUNDING, 0.0, y - mean)
    blocks = in_blocks(apart / (deviation + 1), block)  # eq. 1
    shape, left, right = fitted(blocks.flatten(1))
    found = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = fitted((blocks * blocks.roll(shift, (1, 2))).flatten(1))
        mean = (right - left) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        found += [shape, mean, left, right]
    return torch.stack(found, 1)


def block_features(image: Tensor, luma: str) -> Tensor:
    """Return features (m, 36) of the m blocks of uint8 (3, H, W), at both sizes."""
    y = luminance(image, luma)
    return torch.cat([features(y, BLOCK), features(halved(y), BLOCK // 2)], 1)

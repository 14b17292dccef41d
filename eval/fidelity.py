"""How far images are from the dense model's images of the same keys: PSNR, SSIM.

Both are computed image by image, so that no score depends on a batch, and never on uint8, which wraps.
"""

from collections.abc import Iterator

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from eval import Better, Samples, Score, Unavailable, quality
from eval.statistics import pooled, standard_error

CLOSED = ConfigDict(extra="forbid")
WINDOW = 11  # of SSIM, pixels a side


def pairs(samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image with its dense one, (3, H, W) uint8."""
    if samples.dense is None:
        raise Unavailable("there are no dense images to compare with", "run the baseline on the same keys")
    return zip(samples.images, samples.dense, strict=True)


@dataclass(frozen=True, config=CLOSED)
class PSNR:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), with the share of identical images beside it.

    The MSE is pooled over all images, as torchmetrics' PeakSignalNoiseRatio does: an image identical to its
    dense one adds an error of zero, where a mean of decibels would either be infinite or leave it out. Only
    if all images are identical is the figure infinite, and then `identical` is 1. `per_image` holds each
    image's own PSNR, infinite where identical; decibels pool as powers, and so does their standard error.
    """

    @property
    def better(self) -> dict[str, Better]:
        return {"psnr": "higher", "identical": "higher"}

    def check(self) -> None:
        """Nothing to miss: it needs no weights."""

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        mse = torch.stack([(a.double() - b.double()).square().mean() for a, b in pairs(samples)])  # (n,)
        psnr = tuple((10 * torch.log10(255**2 / mse)).tolist())
        same = tuple((mse == 0).double().tolist())
        value, se = float(pooled(psnr, pool="decibel")), standard_error(psnr, "decibel")
        return [
            Score("psnr", "higher", value, se, samples.n, psnr, pool="decibel"),
            Score("identical", "higher", float(pooled(same)), standard_error(same), samples.n, same),
        ]


def similarity(a: Tensor, b: Tensor) -> float:
    """SSIM of two images (3, H, W) uint8."""
    if torch.equal(a, b):
        return 1.0  # and not all but the rounding
    # imported here: it brings in transformers, and a wrong config is to be refused sooner than that
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    # double: in single precision the variance of a flat bright area is rounding, and a drawing on white is
    # like itself by 0.9997 only
    x, y = a[None].double(), b[None].double()
    value = ssim(x, y, sigma=1.5, kernel_size=WINDOW, data_range=255.0, k1=0.01, k2=0.03)
    assert isinstance(value, Tensor)  # and not also the full image, which was not asked for
    return float(value)


@dataclass(frozen=True, config=CLOSED)
class SSIM:
    """Structural similarity (Wang et al. 2004), 1 for identical images.

    Implementations differ by more than methods do, so this one is pinned: torchmetrics, RGB channels
    averaged, range 255, Gaussian window of sigma 1.5 over 11 x 11 pixels, K1 = 0.01, K2 = 0.03, at every
    position with the image mirrored at its borders (scikit-image leaves these positions out).
    """

    @property
    def better(self) -> dict[str, Better]:
        return {"ssim": "higher"}

    def check(self) -> None:
        """Nothing to miss: it needs no weights."""

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        height, width = samples.images.shape[2:]
        if min(height, width) < WINDOW:
            reason = f"the window of SSIM, {WINDOW} x {WINDOW} pixels, does not fit {height} x {width}"
            raise Unavailable(reason, "make larger images")
        each = tuple(similarity(a, b) for a, b in pairs(samples))
        return [Score("ssim", "higher", float(pooled(each)), standard_error(each), samples.n, each)]

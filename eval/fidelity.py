"""PSNR and SSIM between images and the dense model's images of the same keys.

Both are computed per image, so no score depends on a batch, and never in uint8, which overflows.
"""

import math
from typing import ClassVar

import cv2
import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Samples, Score, Unavailable, quality
from fovea.eval.facts import FLAT, Facts
from fovea.eval.per_image import Compared, needs_dense
from fovea.eval.samples import Batch
from fovea.eval.statistics import pooled, standard_error

CLOSED = ConfigDict(extra="forbid")
WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, in pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True, config=CLOSED)
class PSNR(Compared):
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), together with the share of identical images.

    The MSE is pooled over all images, as in torchmetrics' PeakSignalNoiseRatio: an image identical to its
    dense one contributes an error of zero, whereas a mean of decibels would be infinite or have to omit it.
    The score is infinite only if all images are identical, in which case `identical` is 1. `per_image` is
    each image's own PSNR, infinite if identical; decibels are pooled as powers, and so is their standard
    error.
    """

    scores: ClassVar[dict[str, Facts]] = {
        "psnr": Facts(
            *("PSNR", "higher", "likeness", "dB"),
            reference=math.inf,
            low=0,
            flat=20 * math.log10(255 / (FLAT[1] - FLAT[0])),
        ),
        "identical": Facts(
            "identical images", "higher", "likeness", hidden=True, reference=1, low=0, high=1, flat=0
        ),
    }

    def compute(self, batch: Batch) -> dict[str, Tensor]:
        pairs = zip(batch.images, batch.dense, strict=True)
        # as floats: a tensor per pair would fragment the heap and keep the temporaries' memory in use
        mse = [float((a.double() - b.double()).square().mean()) for a, b in pairs]
        return {"mse": torch.tensor(mse, dtype=torch.float64)}

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        needs_dense(samples)
        mse = samples.rows(self)["mse"].tensor()  # (n,)
        psnr = tuple((10 * torch.log10(255**2 / mse)).tolist())
        same = tuple((mse == 0).double().tolist())
        value, se = float(pooled(psnr, pool="decibel")), standard_error(psnr, "decibel", samples.prompts)
        share, error = float(pooled(same)), standard_error(same, groups=samples.prompts)
        return [
            Score("psnr", self.scores["psnr"], value, se, samples.n, psnr, pool="decibel"),
            Score("identical", self.scores["identical"], share, error, samples.n, same),
        ]


def similarity(a: Tensor, b: Tensor) -> float:
    """Return the SSIM of two images (3, H, W) uint8."""
    if torch.equal(a, b):
        return 1.0  # exactly, without rounding
    # per channel, to keep the memory of the moments small
    channels = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    return float(np.mean([likeness(x, y).mean() for x, y in channels]))


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the SSIM at each position (H, W) of two channels (H, W) uint8."""
    # double: in single precision the variance of a flat bright area is rounding error, and a drawing on white
    # has an SSIM with itself of only 0.9997
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my, xx, yy, xy = map(blurred, (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
    structure = (2 * (xy - mx * my) + C2) / (xx - mx**2 + yy - my**2 + C2)
    return luminance * structure


def blurred(channel: np.ndarray) -> np.ndarray:
    """Apply the Gaussian window to (H, W) float64, mirrored at the borders.

    Rows, then columns: equal to torchmetrics' square window. OpenCV takes a hundredth of the time of torch's
    convolution of doubles on a CPU.
    """
    at = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-((at / SIGMA) ** 2) / 2)
    weights /= weights.sum()
    return cv2.sepFilter2D(channel, cv2.CV_64F, weights, weights, borderType=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True, config=CLOSED)
class SSIM(Compared):
    """Structural similarity (Wang et al. 2004); 1 for identical images.

    Implementations differ by more than methods do, so this one is fixed to torchmetrics': RGB channels
    averaged, range 255, Gaussian window of sigma 1.5 over 11 x 11 pixels, K1 = 0.01, K2 = 0.03, at every
    position with the image mirrored at its borders (scikit-image omits these positions).
    """

    name: ClassVar[str] = "ssim"
    facts: ClassVar[Facts] = Facts(
        *("SSIM", "higher", "likeness"),
        reference=1,
        low=-1,
        high=1,
        flat=(2 * FLAT[0] * FLAT[1] + C1) / (FLAT[0] ** 2 + FLAT[1] ** 2 + C1),
    )

    def figures(self, batch: Batch) -> tuple[float, ...]:
        height, width = batch.samples.size
        if min(height, width) < WINDOW:
            reason = f"the window of SSIM, {WINDOW} x {WINDOW} pixels, does not fit {height} x {width}"
            raise Unavailable(reason, "make larger images")
        return tuple(similarity(a, b) for a, b in zip(batch.images, batch.dense, strict=True))

"""NIQE: distance of an image's local statistics from those of undistorted photographs (Mittal et al. 2013).

"Making a 'completely blind' image quality analyzer", IEEE Signal Processing Letters 20(3). The distance is
between two Gaussians of 36 features (naturalness.py): over the image's blocks, and over blocks of
photographs.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Samples, Unavailable
from fovea.eval.facts import Facts
from fovea.eval.naturalness import BLOCK, block_features
from fovea.eval.per_image import Judged
from fovea.eval.samples import Batch
from fovea.eval.weights import digest, located

Luma = Literal["gray", "ycbcr"]


def distance(found: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Return the distance of features (m, 36) to the Gaussian of photographs (eq. 10).

    Flat blocks, which are NaN, are omitted. NaN if fewer than two remain.
    """
    whole = found[~found.isnan().any(1)]
    if len(whole) < 2:
        return math.nan
    apart = mean - found.nanmean(0)
    return float((apart @ torch.linalg.pinv((covariance + whole.T.cov()) / 2, hermitian=True) @ apart).sqrt())


def distances(photographs: Mapping[str, Tensor], luma: Luma, images: Tensor) -> tuple[float, ...]:
    """Return the distance of each image (n, 3, H, W); NaN for flat images."""
    found = (block_features(image, luma) for image in images)
    return tuple(distance(x, photographs["mean"], photographs["covariance"]) for x in found)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NIQE(Judged):
    """NIQE, lower is better, averaged over images: `niqe[gray]`. Uses neither prompts nor dense images.

    parameters: a safetensors file with `mean` (36,) and `covariance` (36, 36): the published ones, or fitted
        to a folder of photographs by `python -m scripts.niqe_parameters`.
    luma: definition of luminance, see LUMA.

    An image needs at least two non-flat blocks, that is at least 96 x 192 pixels.
    """

    parameters: Path = Path("eval/niqe.safetensors")
    luma: Luma = "gray"
    seed: int = 0

    facts: ClassVar[Facts] = Facts("NIQE", "lower", "preference", low=0)

    @property
    def name(self) -> str:
        return f"niqe[{self.luma}]"

    def check(self) -> None:
        if not located(self.parameters).is_file():
            remedy = "`python -m scripts.niqe_parameters` writes them; or give `metric.NAME.parameters=FILE`"
            raise Unavailable(f"no parameters of photographs in {self.parameters}", remedy)

    @property
    def identity(self) -> dict[str, Any]:
        self.check()
        return {"parameters": digest(located(self.parameters)), "luma": self.luma}

    def figures(self, batch: Batch) -> tuple[float, ...]:
        from safetensors.torch import load_file

        height, width = batch.samples.size
        if (height // BLOCK) * (width // BLOCK) < 2:
            raise Unavailable(
                f"NIQE needs two blocks of 96 x 96 pixels, not {height} x {width}", "make larger images"
            )
        return distances(load_file(located(self.parameters)), self.luma, batch.images)

    def each(self, samples: Samples) -> tuple[float, ...]:
        """Return the value of each image. Raises Unavailable if one is flat."""
        each = super().each(samples)
        if flat := sum(map(math.isnan, each)):
            reason = f"{flat} of {len(each)} images are flat in all but one of their blocks"
            raise Unavailable(reason, "NIQE is for photographs; leave it out for these prompts")
        return each

"""SeaCache: skip the blocks while what the noise leaves to be seen has hardly changed (arXiv:2602.18993)."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.gate import Gate
from fovea.models.tokens import unpack


@dataclass(frozen=True, config={"extra": "forbid"})
class SeaCache(Gate):
    """The gate over the blocks' input, filtered as Wiener would at this noise level: without coefficients.

    power: beta of the spectrum 1 / f^beta that images are taken to have (eq. 6); 2 for images, 3 for video.
    indicator: what is filtered: the first block's modulated input, as in the paper, or the "latent" itself,
    as in diffusers' hook, whose residual_order and max_consecutive_cached are 0 here.

    The authors leave the input of step 0 unfiltered, so that step 1 nearly always runs; here it is filtered.
    """

    power: Annotated[float, Field(gt=0)] = 2.0
    indicator: Literal["block", "latent"] = "block"

    needs_grid: ClassVar = True

    def watched(self, flow, e, x, sigma, encodings):
        if self.indicator == "block":
            picture = unpack(e.modulated(), encodings.grid, 1)  # (b', d, rows, columns)
        else:
            picture = unpack(x, encodings.grid, round(flow.pixels**0.5))  # (b, c, h, w)
        return visible(picture, sigma, self.power).flatten(2)


def visible(picture: Tensor, sigma: Tensor, power: float) -> Tensor:
    """picture (b, c, h, w) under the filter of eqs. 5 to 7, whose gain is 1 on average; in float32."""
    rows, columns = (gain(size, sigma, power) for size in picture.shape[2:])
    both = rows[:, None] * columns
    return torch.fft.ifft2(torch.fft.fft2(picture.float()) * (both / both.mean())).real


def gain(size: int, sigma: Tensor, power: float) -> Tensor:
    """Of each frequency along one side, (size,): the linear estimate of an image of spectrum 1 / f^power from
    (1 - sigma) image + sigma noise. Of two sides it is taken to be the product, as the authors' code does."""
    noise = sigma.clamp(1e-6, 1 - 1e-6)
    spectrum = 1 / (torch.fft.fftfreq(size, device=sigma.device).abs() ** power + 1e-16)
    return (1 - noise) * spectrum / ((1 - noise) ** 2 * spectrum + noise**2 + 1e-16)

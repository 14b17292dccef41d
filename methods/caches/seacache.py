"""SeaCache: skip the blocks while what is visible through the noise hardly changes (arXiv:2602.18993)."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.gate import Gate
from fovea.models.tokens import unpack


@dataclass(frozen=True, config={"extra": "forbid"})
class SeaCache(Gate):
    """A gate on the blocks' input after a Wiener filter for the current noise level; needs no coefficients.

    power: beta in the assumed image spectrum 1 / f^beta (eq. 6); 2 for images, 3 for video.
    indicator: what is filtered: the modulated input of the first "block", as in the paper, or the "latent",
        as in diffusers' hook with residual_order and max_consecutive_cached of 0.

    The authors do not filter the input of step 0, so that step 1 nearly always runs; here it is filtered.
    """

    power: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    indicator: Literal["block", "latent"] = "block"

    @property
    def needs_grid(self):
        return True

    def indicator_of(self, flow, e, x, sigma, encodings):
        if self.indicator == "block":
            field = unpack(e.modulated(), encodings.grid, 1)  # (b', d, rows, columns)
        else:
            field = unpack(x, encodings.grid, round(flow.pixels**0.5))  # (b, c, h, w)
        return wiener_filter(field, sigma, self.power).flatten(2)


def wiener_filter(field: Tensor, sigma: Tensor, power: float) -> Tensor:
    """Filter picture (b, c, h, w) in float32 by eqs. 5 to 7, normalised to a mean gain of 1."""
    rows, columns = (gain(size, sigma, power) for size in field.shape[2:])
    both = rows[:, None] * columns
    return torch.fft.ifft2(torch.fft.fft2(field.float()) * (both / both.mean())).real


def gain(size: int, sigma: Tensor, power: float) -> Tensor:
    """Gain of the Wiener filter at each frequency along one side, (size,).

    The filter is the linear estimate of an image with spectrum 1 / f^power from (1 - sigma) image + sigma
    noise. The gain in two dimensions is taken as the product over both sides, as in the authors' code.
    """
    noise = sigma.clamp(1e-6, 1 - 1e-6)
    spectrum = 1 / (torch.fft.fftfreq(size, device=sigma.device, dtype=torch.float32).abs() ** power + 1e-16)
    return (1 - noise) * spectrum / ((1 - noise) ** 2 * spectrum + noise**2 + 1e-16)

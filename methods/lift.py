"""Lift: start at half resolution, upsample once, continue at full (arXiv:2607.01642, arXiv:2609.02036)."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods import upscaling
from fovea.methods.resolution import check_even, half_grid
from fovea.methods.stage_callback import StageCallback
from fovea.methods.tokens import euler_step
from fovea.models.tokens import pack, unpack

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Lift:
    """The first `low` steps run at half height and width, from noise of that size. Their last estimate of the
    image, x - sigma v, is upsampled and noised again, and the remaining steps continue from there.

    steps: total number of steps; None for the model's default.
    low: number of steps at half resolution; None for three quarters of all.
    lift: how the image is upsampled. "latent" repeats each latent pixel 2 x 2. "pixel" decodes, upsamples and
        encodes again. "corrected" (SelfLift-zero) starts from "latent" and moves the pixels that differ most
        from "pixel" towards it.
    upscaler: "bicubic", or the .safetensors file of a super-resolution network (`methods.upscaling`).
    restart: noise level at which the full-resolution steps start; they descend evenly to 0, and the low steps
        have a schedule of their own (MrFlow). None uses one schedule for all steps (SelfLift-zero).
    risk: share of the latent pixels that "corrected" moves.
    weight: how far it moves them, from the least to the most different.

    MrFlow is lift=pixel with 12 low steps of 13, restart=0.12 and Real-ESRGAN as upscaler; bicubic is the
    control. The authors round the image to 8 bits and sample from the autoencoder's posterior; here its mean
    is used. SelfLift-zero is lift=corrected, published for models of 4 and 8 steps. Both start from different
    noise than the dense run and so produce a different image: similarity to the dense image does not measure
    their quality.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    low: Annotated[int, Field(ge=0)] | None = None
    lift: Literal["latent", "pixel", "corrected"] = "pixel"
    upscaler: str = "bicubic"
    restart: Annotated[float, Field(ge=0, lt=1)] | None = None
    risk: Share = 0.3
    weight: tuple[Share, Share] = (0.5, 1.0)

    off: ClassVar[dict[str, Any]] = {"low": 0, "restart": None}
    another_image: ClassVar[bool] = True

    def __post_init__(self):
        if None not in (self.steps, self.low):
            self.split(self.steps or 0)
        if self.low == 0 and self.restart is not None:
            raise ValueError(f"low=0, restart={self.restart}: without low steps there is nothing to restart")
        if self.weight[0] > self.weight[1]:
            raise ValueError(f"weight={list(self.weight)}: must be in ascending order")
        upscaling.check(self.upscaler)

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if the grid (rows, columns) is not even, there are fewer steps than `low`, or the
        upscaler cannot be loaded."""
        self.split(steps)
        if self.low != 0:
            check_even(*grid)
        if self.lift != "latent":
            upscaling.load(self.upscaler)

    def split(self, steps: int) -> tuple[int, int]:
        """Return the number of steps at half and at full resolution."""
        low = round(0.75 * steps) if self.low is None else self.low
        if low > steps:
            raise ValueError(f"low={low}: must be at most steps={steps}")
        return low, steps - low

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        report, (first, second) = StageCallback(on_step, flow.grid), self.noise_levels(flow)
        if len(first) > 1:
            half = half_grid(flow.grid)
            x, encodings = flow.noise(half), flow.encodings(grid=half)  # (b, n / 4, c)
            positions = half.positions(x.device).expand(len(x), -1, -1)
            report.begin(x, positions, torch.zeros_like(positions[..., 0]))
            image = x
            for s, s_next in pairwise(first):
                v = flow.velocity(x, s, encodings=encodings)
                image, x = (x.float() - s * v).to(x.dtype), euler_step(x, v, s_next - s)
                report(sigma=s, x=x, v=v, rows=None)
            x = self.add_noise(flow, self.upsample(flow, image, half), second[0])
        else:
            x = flow.noise()  # (b, n, c)
        report.begin(x)
        for s, s_next in pairwise(second):
            v = flow.velocity(x, s)
            x = euler_step(x, v, s_next - s)
            report(sigma=s, x=x, v=v, rows=None)
        return x

    def noise_levels(self, flow) -> tuple[Tensor, Tensor]:
        """Return the noise levels of the steps at half and at full resolution, each with the final one."""
        low, high = self.split(flow.steps if self.steps is None else self.steps)
        if self.restart is None:
            levels = flow.sigmas(self.steps)
            return levels[: low + 1], levels[low:]
        start = self.restart if high else 0.0
        restarted = torch.linspace(start, 0.0, high + 1, device=flow.device, dtype=torch.float32)
        return flow.sigmas(low, half_grid(flow.grid)), restarted

    def add_noise(self, flow, image: Tensor, sigma: Tensor) -> Tensor:
        """Return the image (b, n, c) with fresh noise at level sigma."""
        return ((1 - sigma) * image.float() + sigma * flow.noise()).to(image.dtype)

    def upsample(self, flow, image: Tensor, half) -> Tensor:
        """Upsample the image (b, n / 4, c) to full size, (b, n, c)."""
        p = round(flow.pixels**0.5)
        repeated = unpack(image, half, p).repeat_interleave(2, 2).repeat_interleave(2, 3)
        if self.lift == "latent":
            return pack(repeated, p)
        large = upscaling.upscale(flow, flow.decode(image, half), self.upscaler)
        pixel = flow.encode(large).to(image.dtype)
        if self.lift == "pixel":
            return pixel
        return pack(self.correct(repeated.float(), unpack(pixel.float(), flow.grid, p)).to(image.dtype), p)

    def correct(self, latent: Tensor, pixel: Tensor) -> Tensor:
        """Move `latent` towards `pixel` where they differ most; both (b, c, h, w)."""
        difference = pixel - latent
        risk = difference.abs().mean(1).flatten(1)  # (b, h w)
        count = round(self.risk * risk.shape[1])
        if not count:
            return latent
        most, indices = risk.topk(count)
        low, high = most[:, -1:], most[:, :1]
        least, full = self.weight
        share = least + (full - least) * (most - low) / (high - low + 1e-8)
        weights = torch.zeros_like(risk).scatter(1, indices, share).unflatten(1, difference.shape[2:])
        return latent + weights[:, None] * difference

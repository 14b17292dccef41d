"""What a stock pipeline does around its transformer: the size of an image, noise, noise levels, decoding."""

import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fovea.models.family import Family
from fovea.models.settings import is_whole
from fovea.models.text_limits import cut
from fovea.models.tokens import Grid, pack, unpack


class Around(Family):
    """cell: side of a token in pixels."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.dit = pipe, pipe.transformer
        self.dtype, self.device = self.dit.dtype, pipe._execution_device
        # not pipe.vae_scale_factor, which LuminaPipeline fixes at 8
        self.cell = 2 ** (len(pipe.vae.config.block_out_channels) - 1) * self.patch
        self._decode_flops: dict[Grid, int] = {}

    def cut(self, prompts: Sequence[str], max_sequence_length: int | None = None) -> dict[int, int]:
        """Limits of the text encoders, in tokens, that some prompts exceed, with the number of those."""
        return cut(self.readers(max_sequence_length), prompts)

    def unlike_stock(self, guidance: float | None) -> str | None:
        """What this guidance does that the pipeline's own call does not, in a sentence, if anything."""
        return None

    def grid(self, height: int, width: int) -> Grid:
        """Tokens of an image of height x width pixels; ValueError if it is not a whole number of them."""
        if not all(is_whole(size, self.cell) and size % self.cell == 0 for size in (height, width)):
            raise ValueError(f"height {height} and width {width} must be multiples of {self.cell} pixels")
        return Grid(int(height) // self.cell, int(width) // self.cell)

    def noise(self, generators: Sequence[torch.Generator], grid: Grid) -> Float[Tensor, "b n c"]:
        """Standard normal tokens, drawn as the pipeline draws them; one generator per image."""
        shape = (len(generators), self.channels, *(size * self.patch for size in grid))
        latents = randn_tensor(shape, generator=[*generators], device=self.device, dtype=self.dtype)
        return pack(latents, self.patch)

    def sigmas(self, steps: int, grid: Grid) -> Float[Tensor, " steps_and_1"]:
        """The pipeline's noise levels from 1 to 0, float32. The pipeline's own scheduler stays as it is."""
        scheduler = deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(device=self.device, **self.schedule(steps, grid))
        return scheduler.sigmas

    def schedule(self, steps: int, grid: Grid) -> dict[str, Any]:
        """Arguments of the scheduler's `set_timesteps`."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return {"num_inference_steps": steps}
        base, end = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        return {"num_inference_steps": steps, "mu": calculate_shift(grid.n, base, end, low, high)}

    def shift(self, grid: Grid) -> float:
        """h of the schedule, in which an even u becomes sigma = h u / (1 + (h - 1) u)."""
        config, mu = self.pipe.scheduler.config, self.schedule(2, grid).get("mu")
        if mu is None:
            return self.pipe.scheduler.shift  # which set_shift may have changed
        return mu if config.get("time_shift_type") == "linear" else math.exp(mu)

    def decode(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1], float32, as the pipeline decodes them."""
        return (self.decoded(x, grid) * 0.5 + 0.5).clamp(0, 1).float()

    @torch.no_grad()
    def decoded(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """What the autoencoder gives, in [-1, 1] and somewhat beyond."""
        vae = self.pipe.vae
        latents = unpack(x, grid, self.patch).to(vae.dtype) / vae.config.scaling_factor
        return vae.decode(latents + (vae.config.shift_factor or 0), return_dict=False)[0]

    def decode_flops(self, grid: Grid) -> int:
        """FLOPs of decoding one image of the grid, counted without computing it."""
        if grid not in self._decode_flops:
            with torch.device("meta"):
                vae = type(self.pipe.vae).from_config(self.pipe.vae.config)
                latents = torch.empty(1, self.channels, *(size * self.patch for size in grid))
                with FlopCounterMode(display=False) as counter:
                    vae.decode(latents)
            self._decode_flops[grid] = counter.get_total_flops()
        return self._decode_flops[grid]

    def default(self, name: str) -> Any:
        """The default of an argument of the pipeline's own call."""
        return inspect.signature(type(self.pipe).__call__).parameters[name].default

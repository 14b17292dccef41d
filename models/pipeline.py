"""The pipeline side of a model: prompts, image size, noise, noise levels and decoding."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fovea.models.autoencoder import latent_channels
from fovea.models.settings import is_integer, negative_prompts
from fovea.models.text_limits import TextLimit, count_truncated
from fovea.models.tokens import Conditioning, Grid, conditioning_in_passes, pack, unpack
from fovea.models.transformer import Transformer


class Pipeline(ABC):
    """What a stock pipeline does around its transformer.

    encode_options: names of the family's options of `encode`.
    max_text_tokens: maximum number of text tokens.
    max_shift: default of the pipeline's schedule.
    schedule_depends_on_steps: whether the schedule depends on the number of steps; see `sigmas`.
    """

    encode_options: ClassVar[tuple[str, ...]] = ("max_sequence_length",)
    max_text_tokens: ClassVar[int] = 512
    schedule_depends_on_steps: ClassVar[bool] = False
    max_shift: ClassVar[float] = 1.15

    def __init__(self, pipe: Any, transformer: Transformer) -> None:
        self.pipe, self.transformer = pipe, transformer
        self._flops: dict[tuple[str, Grid], int] = {}

    @abstractmethod
    def encode(
        self, prompts: Sequence[str], negative=None, guidance: float | None = None, **limits
    ) -> Conditioning:
        """Encode prompts, including the guidance halves.

        negative: one string for all prompts or one each; None for "".
        guidance: None for the pipeline's default; values up to 1 disable guidance, as in the pipeline, or up
            to 0 (Z-Image, Krea 2).
        limits: `max_sequence_length` (ignored by Lumina, as in its pipeline, where it is fixed),
            `true_cfg_scale` (FLUX).
        """

    def encode_in_passes(
        self,
        kwargs_of: Callable[[Sequence[str]], dict[str, Any]],
        prompts: Sequence[str],
        negative,
        guidance: float,
    ) -> Conditioning:
        """As `encode`, with the halves of guidance as two passes.

        kwargs_of: encodes prompts as keyword arguments of the transformer's own forward.
        """
        negative = negative_prompts(negative, len(prompts))
        cond, *uncond = (
            self.transformer.condition(kwargs_of(half), False, guidance)
            for half in ([*prompts], negative)[: 1 + self.guided(guidance)]
        )
        return conditioning_in_passes(cond, uncond[0], guidance) if uncond else cond

    @abstractmethod
    def text_limits(self, max_sequence_length: int | None = None) -> list[TextLimit]:
        """Return the text encoders' tokenizers, and how many tokens of a prompt they read."""

    def count_truncated(
        self, prompts: Sequence[str], max_sequence_length: int | None = None
    ) -> dict[int, int]:
        """Return the text encoders' token limits that some prompts exceed, with the number of those."""
        return count_truncated(self.text_limits(max_sequence_length), prompts)

    @classmethod
    def guides(cls, guidance: float, transformer: Mapping[str, Any], pipeline: Mapping[str, Any]) -> bool:
        """Whether `encode` adds the negative prompt at this guidance scale, given without other options.

        transformer, pipeline: their configs.
        """
        return guidance > 1

    def guided(self, guidance: float) -> bool:
        """As `guides`, of this pipeline."""
        return self.guides(guidance, self.transformer.dit.config, self.pipe.config)

    def stock_difference(self, guidance: float | None) -> str | None:
        """Describe how this guidance differs from the pipeline's own call; None if it does not."""
        return None

    def grid(self, height: int, width: int) -> Grid:
        """Return the token grid of an image of height x width pixels.

        ValueError if the size is not a multiple of a token, or exceeds the transformer's positions.
        """
        cell, largest = self.transformer.token_size, self.transformer.max_side
        if not all(is_integer(size, cell) and size % cell == 0 for size in (height, width)):
            raise ValueError(f"height {height!r} and width {width!r} must be multiples of {cell} pixels")
        grid = Grid(int(height) // cell, int(width) // cell)
        if largest is not None and max(grid) > largest:
            raise ValueError(f"height {height} and width {width} must be at most {largest * cell} pixels")
        return grid

    def noise(self, generators: Sequence[torch.Generator], grid: Grid) -> Float[Tensor, "b n c"]:
        """Return standard normal tokens drawn as in the pipeline, with one generator per image."""
        from diffusers.utils.torch_utils import randn_tensor

        transformer = self.transformer
        shape = (len(generators), transformer.channels, *(size * transformer.patch for size in grid))
        return pack(
            randn_tensor(
                shape, generator=[*generators], device=transformer.device, dtype=transformer.latent_dtype
            ),
            transformer.patch,
        )

    def sigmas(
        self, steps: int, grid: Grid, schedule_steps: int | None = None
    ) -> Float[Tensor, " steps_and_1"]:
        """Return the pipeline's noise levels from 1 to 0, float32. The pipeline's scheduler is not modified.

        schedule_steps: keep the schedule of this number of steps, if it depends on the number: its shift
            (FLUX.2) and the stretch to its last level (Qwen-Image). With half as many steps the levels are
            then every other one.

        ValueError where the stretch to the last level is not defined (a single step), or leads below 0 (more
        steps than those of the schedule that is kept).
        """
        schedule_steps = steps if schedule_steps is None else schedule_steps
        terminal = self.pipe.scheduler.config.shift_terminal
        if terminal and schedule_steps == 1:
            raise ValueError(
                f"steps=1: the scheduler stretches its levels to a last one of shift_terminal={terminal}, "
                "and a single step is at level 1; at least 2"
            )
        levels = self._levels(steps, grid, schedule_steps)
        if not bool((levels[:-1] > 0).all()):
            raise ValueError(
                f"steps={steps}: levels stretched as those of {schedule_steps} steps are, to shift_terminal="
                f"{terminal}, fall to 0 before the end; at most {schedule_steps}, or a schedule of their own"
            )
        return levels.to(self.transformer.device)

    def _levels(self, steps: int, grid: Grid, schedule_steps: int) -> Float[Tensor, " steps_and_1"]:
        """As `sigmas`, unchecked and on the CPU, where the scheduler computes them."""
        scheduler, given = deepcopy(self.pipe.scheduler), self.schedule(steps, grid)
        if "mu" in given:
            given["mu"] = self.schedule(schedule_steps, grid)["mu"]
        terminal = None if schedule_steps == steps else scheduler.config.shift_terminal
        if terminal is not None:
            scheduler.register_to_config(shift_terminal=None)
        scheduler.set_timesteps(device="cpu", **given)
        levels = scheduler.sigmas
        if terminal is None:
            return levels
        scheduler.set_timesteps(device="cpu", **self.schedule(schedule_steps, grid))
        stretch = (1 - terminal) / (1 - scheduler.sigmas[-2])
        return torch.cat([1 - (1 - levels[:-1]) * stretch, levels[-1:]])

    def schedule(self, steps: int, grid: Grid) -> dict[str, Any]:
        """Return the arguments of the scheduler's `set_timesteps`."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return {"num_inference_steps": steps}
        base, end = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        return {"num_inference_steps": steps, "mu": calculate_shift(grid.n, base, end, low, high)}

    def shift(self, steps: int, grid: Grid) -> float:
        """Shift h of the schedule, which maps an even u to sigma = h u / (1 + (h - 1) u)."""
        config, mu = self.pipe.scheduler.config, self.schedule(steps, grid).get("mu")
        if mu is None:
            return self.pipe.scheduler.shift  # may have been changed by set_shift
        return mu if config.get("time_shift_type") == "linear" else math.exp(mu)

    def decode(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """Decode to images in [0, 1], float32, as the pipeline does."""
        return (self.decode_raw(x, grid) * 0.5 + 0.5).clamp(0, 1).float()

    @torch.no_grad()
    def decode_raw(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """Return the autoencoder's output, in [-1, 1] and slightly beyond."""
        vae = self.pipe.vae
        return self.vae_decode(vae, self.denormalise(unpack(x, grid, self.transformer.patch).to(vae.dtype)))

    def denormalise(self, latents: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c height width"]:
        """Map latents from the transformer's scale, of order one, to the autoencoder's."""
        config = self.pipe.vae.config
        return latents / config.scaling_factor + (config.shift_factor or 0)

    @staticmethod
    def vae_decode(vae: Any, latents: Float[Tensor, "b c height width"]) -> Float[Tensor, "b 3 h w"]:
        return vae.decode(latents, return_dict=False)[0]

    @torch.no_grad()
    def encode_raw(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Encode images in [-1, 1] to tokens, using the mean of the autoencoder's posterior."""
        vae, transformer = self.pipe.vae, self.transformer
        return pack(
            self.normalise(self.vae_encode(vae, images.to(vae.dtype))).to(transformer.latent_dtype),
            transformer.patch,
        )

    def normalise(self, latents: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c height width"]:
        """The inverse of `denormalise`."""
        config = self.pipe.vae.config
        return (latents - (config.shift_factor or 0)) * config.scaling_factor

    @staticmethod
    def vae_encode(vae: Any, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c height width"]:
        encoded = vae.encode(images)  # AutoencoderTiny has no posterior
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()

    def decode_flops(self, grid: Grid) -> int:
        """FLOPs of decoding one image of the grid, counted on the meta device."""
        size = [side * self.transformer.patch for side in grid]
        return self._counted("decode", grid, self.vae_decode, latent_channels(self.pipe.vae.config), size)

    def encode_flops(self, grid: Grid) -> int:
        """FLOPs of encoding one image of the grid."""
        size = [side * self.transformer.token_size for side in grid]
        return self._counted("encode", grid, self.vae_encode, 3, size)

    def _counted(
        self, name: str, grid: Grid, run: Callable[[Any, Tensor], Tensor], channels: int, size: Sequence[int]
    ) -> int:
        if (name, grid) not in self._flops:
            with torch.device("meta"):
                vae = type(self.pipe.vae).from_config(self.pipe.vae.config)
                with FlopCounterMode(display=False) as counter:
                    run(vae, torch.empty(1, channels, *size))
            self._flops[name, grid] = counter.get_total_flops()
        return self._flops[name, grid]

    @property
    def default_size(self) -> int:
        """Default side of an image in pixels."""
        return self.pipe.default_sample_size * self.transformer.token_size // self.transformer.patch

    def default(self, name: str) -> Any:
        """Return the default of an argument of the pipeline's own call."""
        return inspect.signature(type(self.pipe).__call__).parameters[name].default

    def limit(self, max_sequence_length: int | None) -> int:
        """Return how many tokens of a prompt are read; by default as many as by the pipeline's own call."""
        return self.default("max_sequence_length") if max_sequence_length is None else max_sequence_length

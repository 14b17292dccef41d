"""A stock pipeline as a velocity model, consisting of a transformer side and a pipeline side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fovea.models.flow import Flow
from fovea.models.forward import reset_caches
from fovea.models.kv import KV
from fovea.models.pipeline import Pipeline
from fovea.models.settings import as_texts, check_names, check_scale, negative_prompts, whole_number
from fovea.models.tokens import Conditioning, Encodings, Grid
from fovea.models.transformer import Transformer


@dataclass(frozen=True, eq=False)
class Model:
    """A velocity model, created by `adapt`.

    `flow` starts a batch of images; the other methods expose its parts and are documented on `Pipeline` and
    `Transformer`.

    family: name of the family.
    """

    family: str
    transformer: Transformer
    pipeline: Pipeline

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def blocks(self) -> list[Any]:
        """The transformer's blocks in order."""
        return self.transformer.blocks

    def encode(
        self, prompts: Sequence[str], negative: Any = None, guidance: float | None = None, **limits: Any
    ) -> Conditioning:
        """See `Pipeline.encode`."""
        return self.pipeline.encode(prompts, negative, guidance, **limits)

    def count_truncated(
        self, prompts: Sequence[str], max_sequence_length: int | None = None
    ) -> dict[int, int]:
        """See `Pipeline.count_truncated`."""
        return self.pipeline.count_truncated(prompts, max_sequence_length)

    def grid(self, height: int, width: int) -> Grid:
        """See `Pipeline.grid`."""
        return self.pipeline.grid(height, width)

    def noise(self, generators: Sequence[torch.Generator], grid: Grid) -> Float[Tensor, "b n c"]:
        """See `Pipeline.noise`."""
        return self.pipeline.noise(generators, grid)

    def sigmas(
        self, steps: int, grid: Grid, schedule_steps: int | None = None
    ) -> Float[Tensor, " steps_and_1"]:
        """See `Pipeline.sigmas`."""
        return self.pipeline.sigmas(steps, grid, schedule_steps)

    def encodings(self, grid: Grid, positions: Float[Tensor, "b n 2"] | None = None) -> Encodings:
        """See `Transformer.encodings`."""
        return self.transformer.encodings(grid, positions)

    def velocity(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        cond: Conditioning,
        encodings: Encodings,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
        keep_text: bool = False,
    ) -> Float[Tensor, "b k c"]:
        """See `Transformer.velocity`."""
        return self.transformer.velocity(x, sigma, cond, encodings, kv, rows, keep_text)

    def decode(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """See `Pipeline.decode`."""
        return self.pipeline.decode(x, grid)

    def offload(self) -> None:
        """Move offloaded components off the device at the end of a batch."""
        self.pipeline.pipe.maybe_free_model_hooks()

    def check(self, guidance: float | None, **limits: Any) -> None:
        """Raise ValueError or TypeError for an invalid guidance scale or option of `encode`."""
        check_names(
            limits, ("height", "width", "steps", "guidance", "negative", *self.pipeline.encode_options)
        )
        check_scale("guidance", guidance)
        check_scale("true_cfg_scale", limits.get("true_cfg_scale"))
        if limits.get("max_sequence_length") is not None:
            whole_number(
                "max_sequence_length", limits["max_sequence_length"], 1, self.pipeline.max_text_tokens
            )

    def grid_and_steps(
        self, height: int | None = None, width: int | None = None, steps: int | None = None
    ) -> tuple[Grid, int]:
        """Return the token grid and the number of steps; None selects the pipeline's own default.

        Raises ValueError for invalid ones.
        """
        pipeline = self.pipeline
        steps = whole_number("steps", pipeline.default("num_inference_steps") if steps is None else steps)
        sides = (pipeline.default_size if side is None else side for side in (height, width))
        return pipeline.grid(*sides), steps

    def flow(
        self,
        prompts: Sequence[str],
        *,
        generators: Sequence[torch.Generator],
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str | Sequence[str] | None = None,
        **limits: Any,
    ) -> Flow:
        """Start a batch of images, with one generator each. None selects the pipeline's own default.

        negative: one for all images, or one each.
        limits: options of `encode`.

        Raises ValueError or TypeError for invalid settings.
        """
        pipeline = self.pipeline
        prompts, generators = as_texts("prompts", prompts), [*generators]
        if len(prompts) != len(generators):
            raise ValueError(f"{len(prompts)} prompts need {len(prompts)} generators, not {len(generators)}")
        self.check(guidance, **limits)
        grid, steps = self.grid_and_steps(height, width, steps)
        cond = pipeline.encode(prompts, negative_prompts(negative, len(prompts)), guidance, **limits)
        reset_caches(self.transformer.dit)
        return Flow(self.transformer, pipeline, cond, grid, generators, steps)

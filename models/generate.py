"""Images from prompts with any stock pipeline and any method."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fovea.models.adapt import adapt
from fovea.models.flow import Flow


def generator(prompt: str, seed: int) -> torch.Generator:
    """The random numbers of one image: they depend on its prompt and seed, not on its batch or its turn."""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def generate(
    pipe: Any,
    prompts: str | Sequence[str],
    *,
    method: Callable[..., Tensor],
    seed: int = 0,
    generators: Sequence[torch.Generator] | None = None,
    batch: int = 4,
    output: Literal["pil", "latent"] = "pil",
    on_step: Callable[..., None] | None = None,
    dense: Literal["tokens", "stock"] = "tokens",
    **options: Any,
) -> list[Any]:
    """One image per prompt, made by `method(flow, on_step=...)` on a stock SD3, Lumina or FLUX pipeline.

        from fovea.methods import RAS
        from fovea.models import generate
        images = generate(pipe, ["a fox in the snow"], method=RAS(ratio=0.25), seed=0)

    generators: one per prompt; `generator(prompt, seed)` each if None. options: height, width, steps,
    guidance, negative and the limits of `Model.encode`; what is left out is the default of the pipeline's own
    call. output: PIL images, or "latent": the final tokens (n, c) of each image. The pipeline is as before
    afterwards.
    """
    prompts = [prompts] if isinstance(prompts, str) else [*prompts]
    generators = generators or [generator(prompt, seed) for prompt in prompts]
    results: list[Any] = []
    with adapt(pipe, dense) as model:
        for first in range(0, len(prompts), batch):
            part = slice(first, first + batch)
            flow = model.flow(prompts[part], generators=generators[part], **options)
            x = method(flow, on_step=on_step)
            results += list(x) if output == "latent" else images(pipe, flow, x)
    return results


def images(pipe: Any, flow: Flow, x: Tensor) -> list[Any]:
    pixels = flow.decode(x).cpu().permute(0, 2, 3, 1).numpy()  # (b, h, w, 3)
    return pipe.image_processor.numpy_to_pil(pixels)

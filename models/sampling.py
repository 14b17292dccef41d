"""Generate images from prompts with any stock pipeline and any method."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fovea.models.adapters import adapt
from fovea.models.flow import Flow
from fovea.models.settings import (
    as_texts,
    check_fits,
    check_seed,
    negative_prompts,
    steps_of,
    whole_number,
)
from fovea.models.text_limits import describe_truncation

log = logging.getLogger(__name__)

UNGUIDED = "without classifier-free guidance, as with these settings, only the prompt is evaluated"


def generator(prompt: str, seed: int) -> torch.Generator:
    """Return the generator of one image. It depends on prompt and seed, not on the batch or order."""
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
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | Sequence[str] | None = None,
    **options: Any,
) -> list[Any]:
    """Generate one image per prompt with `method(flow, on_step=...)` on a stock pipeline.

        from fovea.methods import RAS
        from fovea.models import generate
        images = generate(pipe, ["a fox in the snow"], method=RAS(ratio=0.25), seed=0)

    seed: seed for all prompts.
    generators: one per prompt, in place of `generator(prompt, seed)`.
    negative: one for all prompts or one each; None for "".
    output: "pil" for PIL images, "latent" for the final tokens (n, c) of each image.
    dense: see `adapt`.
    options: height, width, and the options of `Pipeline.encode`.

    Options left out or None take the defaults of the pipeline's own call. The pipeline is unchanged
    afterwards.

    guidance is `guidance_scale` of the pipeline's call. A FLUX transformer without embedded guidance
    (schnell) ignores it there; here it is the scale of classifier-free guidance, like `true_cfg_scale`, and a
    warning is issued. With `true_cfg_scale` above 1, FLUX is guided away from `negative` even if it is "",
    where the pipeline's own call is unguided. The same holds for Qwen-Image, whose `true_cfg_scale` is
    `guidance` here.

    Without classifier-free guidance `negative` has no effect, as in the pipeline; a warning says so.

    The number of prompts that exceed a text encoder's limit is logged once. Raises ValueError or TypeError
    before any work for invalid settings, a method with a different number of steps or one that does not fit
    the steps or the grid of tokens, or an unsupported pipeline (see `adapt`).
    """
    prompts = as_texts("prompts", prompts)
    negative = negative_prompts(negative, len(prompts))
    whole_number("batch", batch)
    check_calls(method, on_step)
    if output not in ("pil", "latent"):
        raise ValueError(f"output={output!r}: must be 'pil' or 'latent'")
    check_steps(method, steps)
    generators = generators_of(prompts, seed, generators)
    settings = {"steps": steps, "guidance": guidance, **options}
    results: list[Any] = []
    with adapt(pipe, dense) as model:
        model.check(guidance, **options)
        size = options.get("height"), options.get("width")
        check_fits(method, *model.grid_and_steps(*size, steps), len(model.blocks))
        if sentence := describe_truncation(
            model.count_truncated(prompts, options.get("max_sequence_length")), len(prompts)
        ):
            log.warning(sentence)
        if sentence := model.pipeline.stock_difference(guidance):
            warnings.warn(sentence, stacklevel=2)
        for first in range(0, len(prompts), batch):
            part = slice(first, first + batch)
            given = {"generators": generators[part], "negative": negative[part]}
            flow = model.flow(prompts[part], **given, **settings)
            if first == 0 and any(map(str.strip, negative)) and not flow.cond.guided:
                warnings.warn(f"negative has no effect: {UNGUIDED}", stacklevel=2)
            check_guidance(method, flow)
            x = check_result(method(flow, on_step=on_step), flow)
            results += list(x) if output == "latent" else images(pipe, flow, x)
            pipe.maybe_free_model_hooks()  # the next batch starts with the text encoders
    return results


def check_calls(method: Any, on_step: Any) -> None:
    """Raise TypeError unless the method can be called with a flow, and `on_step` with keywords."""
    if isinstance(method, type):
        raise TypeError(f"method={method.__name__}: is a class; give one of its objects, {method.__name__}()")
    for name, value in (("method", method), ("on_step", on_step)):
        if not callable(value) and not (name == "on_step" and value is None):
            raise TypeError(f"{name}={value!r}: must be callable")


def check_guidance(method: Any, flow: Flow) -> None:
    """Raise ValueError if the method saves only work of guidance, and there is none."""
    if getattr(method, "needs_guidance", False) and not flow.cond.guided:
        raise ValueError(
            f"method={type(method).__name__}: {UNGUIDED}, so there is no guidance to leave out; choose "
            "another method, or a pipeline and settings with classifier-free guidance"
        )


def check_result(x: Any, flow: Flow) -> Tensor:
    """Return what a method gave; TypeError or ValueError unless it is the tokens of every image."""
    transformer = flow.transformer
    shape = len(flow.generators), flow.grid.n, transformer.channels * transformer.patch**2
    if not isinstance(x, Tensor):
        raise TypeError(f"the method gave {x!r}, not the final tokens, a tensor of shape {shape}")
    if x.shape != shape:
        raise ValueError(f"the method gave a tensor of shape {tuple(x.shape)}, not of {shape}")
    return x


def check_steps(method: Callable[..., Tensor], steps: int | None) -> None:
    """Raise ValueError if method and caller specify different numbers of steps."""
    method_steps = steps_of(method)
    if None not in (method_steps, steps) and method_steps != steps:
        raise ValueError(
            f"steps={steps}: the method is set to {method_steps} steps; set steps on the method only"
        )


def generators_of(
    prompts: Sequence[str], seed: int, given: Sequence[torch.Generator] | None
) -> Sequence[torch.Generator]:
    """Return one generator per prompt. ValueError if a different number is given, TypeError for others."""
    if given is None:
        seed = check_seed(seed)
        return [generator(prompt, seed) for prompt in prompts]
    given = [*given] if isinstance(given, Iterable) else [given]
    if wrong := [one for one in given if not isinstance(one, torch.Generator)]:
        raise TypeError(
            f"generators: must be torch.Generator, not {wrong[0]!r}; for seeds, generator(prompt, seed)"
        )
    if len(given) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need {len(prompts)} generators, not {len(given)}")
    return given


def images(pipe: Any, flow: Flow, x: Tensor) -> list[Any]:
    pixels = flow.decode(x).cpu().permute(0, 2, 3, 1).numpy()  # (b, h, w, 3)
    return pipe.image_processor.numpy_to_pil(pixels)

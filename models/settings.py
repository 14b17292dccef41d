"""Validation of image settings; messages name the value, what is allowed, and the nearest valid name."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch

# names in diffusers' pipelines -> names here
ALIASES = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "true_cfg_scale": "guidance",
    "negative_prompt": "negative",
    "generator": "generators",
    "num_images_per_prompt": "prompts, each as often as it is wanted, and generators",
    "output_type": "output",
    "callback_on_step_end": "on_step",
}


def is_integer(value: Any, least: int) -> bool:
    """True for an integer of at least `least`; booleans and tensors do not count."""
    try:
        return not isinstance(value, bool | torch.Tensor) and value.__index__() >= least
    except AttributeError:
        return False


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return the value as int; ValueError unless it is an integer within the limits."""
    if not is_integer(value, least) or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}{upper}")
    return int(value)


def check_scale(name: str, value: Any) -> None:
    """Raise ValueError unless the value is None or a finite number of at least 0."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= float(value) < math.inf):
        raise ValueError(f"{name}={value!r}: must be a number of at least 0, or None for the pipeline's own")


def check_guided_to_the_end(name: str, share: float | None) -> None:
    """Raise ValueError if guidance would end after this share of the steps."""
    if share is not None and share < 1:
        raise ValueError(
            f"{name}={share}: guidance would end on the way, and here the pipeline guides to the end. Leave "
            "it out; the method LimitedGuidance (method=guidance) guides some of the steps"
        )


def steps_of(method: Any) -> int | None:
    """Return the method's own number of steps; None if it takes the model's."""
    return getattr(method, "own_steps", getattr(method, "steps", None))


def check_fits(method: Any, grid: tuple[int, int], steps: int, blocks: int | None) -> None:
    """Raise ValueError if a method that can tell cannot run on the grid (rows, columns) of tokens in its
    number of steps, or its cache on the model's blocks.

    steps: the model's number of steps. blocks: number of transformer blocks; None if it is not known.
    """
    if callable(check := getattr(method, "check", None)):
        check(grid, steps_of(method) or steps)
    check_blocks = getattr(getattr(method, "cache", None), "check_blocks", None)
    if callable(check_blocks) and blocks is not None:
        check_blocks(blocks)


def as_texts(name: str, values: Any) -> list[str]:
    """Return the values as a list; TypeError unless they are strings."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{name}: must be text, not {values!r}")
    values = [values] if isinstance(values, str) else [*values]
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None or None in values:
        raise TypeError(f"{name}: must be text, not {wrong!r}")
    if half := next((value for value in values if any("\ud800" <= char <= "\udfff" for char in value)), None):
        raise ValueError(f"{name}: {half!r} holds half of a surrogate pair, which is no character")
    return values


def negative_prompts(value: str | Sequence[str] | None, n: int) -> list[str]:
    """Return one negative prompt for each of n prompts; ValueError if their number differs."""
    if value is None or isinstance(value, str):
        return [value or ""] * n
    found = as_texts("negative", value)
    if len(found) != n:
        raise ValueError(f"{n} prompts need one negative prompt or {n}, not {len(found)}")
    return found


def check_seed(seed: Any) -> int:
    """Return the seed; ValueError unless it is an integer."""
    if not is_integer(seed, -(2**63)):
        raise ValueError(
            f"seed={seed!r}: must be a whole number; for one seed per prompt pass "
            "generators=[generator(prompt, seed) for prompt, seed in ...]"
        )
    return int(seed)


def check_names(given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise TypeError for an unknown setting, suggesting the nearest known one."""
    for name in given:
        if name not in names:
            near = ALIASES.get(name) or next(iter(difflib.get_close_matches(name, names, 1)), None)
            hint = f"; did you mean {near}?" if near else ""
            raise TypeError(f"unknown setting {name}{hint}. Allowed: {', '.join(sorted(names))}")

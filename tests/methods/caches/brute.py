"""Slow caches, put over the modules of a stock pipeline from outside: what ours are checked with."""

import inspect
import re
from collections.abc import Callable
from math import factorial

import torch
from torch import nn


def step_counter(transformer: nn.Module) -> Callable[[], int]:
    """Number of the evaluation in progress, from 0."""
    calls = [-1]

    def count(*_):
        calls[0] += 1

    transformer.register_forward_pre_hook(count)
    return lambda: calls[0]


def difference(history: list, order: int, at: int = -1):
    """Backward difference of a list of (step, value), each over the distance of its last two steps."""
    at %= len(history)
    if order == 0:
        return history[at][1]
    by = history[at][0] - history[at - 1][0]
    return (difference(history, order - 1, at) - difference(history, order - 1, at - 1)) / by


def series(history: list, order: int, step: int):
    """Taylor's formula from the whole history, which is kept."""
    ahead = step - history[-1][0]
    orders = range(min(order, len(history) - 1) + 1)
    return sum(difference(history, j) * ahead**j / factorial(j) for j in orders)


def forecast_modules(
    transformer: nn.Module, pattern: str, order: int, runs: Callable[[int], bool], since: int = 0
) -> None:
    """Each matching module's outputs are forecast at the steps that do not run, from what it put out at step
    `since` and later."""
    step = step_counter(transformer)
    for name, module in transformer.named_modules():
        if re.fullmatch(pattern, name):
            module.forward = forecast(module.forward, step, order, runs, since)


def forecast(
    forward: Callable, step: Callable[[], int], order: int, runs: Callable[[int], bool], since: int
) -> Callable:
    histories: list[list] = []
    tuples: list[bool] = []

    def answer(*args, **kwargs):
        if runs(step()):
            out = forward(*args, **kwargs)
            outputs = out if isinstance(out, tuple) else (out,)
            histories[:] = histories or [[] for _ in outputs]
            for history, value in zip(histories, outputs, strict=True):
                history[:] = [*(past for past in history if past[0] >= since), (step(), value)]
            tuples[:] = [isinstance(out, tuple)]
            return out
        found = tuple(series(history, order, step()) for history in histories)
        return found if tuples[0] else found[0]

    return answer


def hold_blocks(transformer: nn.Module, blocks: list, decide: Callable[..., tuple[int, int, bool]]) -> None:
    """A stretch of blocks adds what it last added.

    decide(step, inputs): first block of the stretch, the one behind it, and whether it runs; asked once per
    step, with the first block's arguments by name.
    """
    step, state = step_counter(transformer), {"step": -1}
    for index, block in enumerate(blocks):
        block.forward = held(block.forward, index, step, state, decide)


def held(forward: Callable, index: int, step: Callable[[], int], state: dict, decide: Callable) -> Callable:
    parameters, kind = inspect.signature(forward), type(forward.__self__).__name__
    single = any(name in kind for name in ("Lumina", "ZImage", "Krea2"))  # a state of one tensor

    def split(text, x):
        """Text and image of what a block is given or gives."""
        if kind == "Flux2SingleTransformerBlock":
            return x[:, : state["text"]], x[:, state["text"] :]
        return text, x

    def scatter_tokens(pair):
        """Text and image as the block gives them."""
        if kind == "Flux2SingleTransformerBlock":
            return torch.cat(pair, 1)
        return pair[1] if single else pair

    def answer(*args, **kwargs):
        inputs = parameters.bind(*args, **kwargs).arguments
        text = inputs.get("encoder_hidden_states")
        if index == 0 and text is not None:
            state["text"] = text.shape[1]
        given = split(None if single else text, inputs["x"] if "x" in inputs else inputs["hidden_states"])
        if state["step"] != step():
            state.update(step=step(), stretch=decide(step(), inputs))
        first, last, runs = state["stretch"]
        if index == first:
            state["before"] = given
            if not runs:
                return scatter_tokens(add(given, state["added"]))
        if first < index < last and not runs:
            return scatter_tokens(given)
        out = forward(*args, **kwargs)
        if index == last - 1 and runs:
            after = out if isinstance(out, tuple) else split(None, out)
            before = zip(after, state["before"], strict=True)
            state["added"] = tuple(None if a is None or b is None else a - b for a, b in before)
        return out

    return answer


def add(given: tuple, added: tuple) -> tuple:
    return tuple(None if a is None or b is None else a + b for a, b in zip(given, added, strict=True))


def gate(dit: nn.Module, threshold: float, steps: int, watched: Callable, changed: Callable) -> list[int]:
    """All blocks add what they last added while the changes, summed since they last ran, are below the
    threshold; first and last step run. The list of the steps that are skipped grows as they are.

    watched(step, block, inputs): what is watched, of the first block and its arguments by name.
    changed(now, before): how far it has, a float.
    """
    names = ("layers", "transformer_blocks", "single_transformer_blocks")
    blocks = [block for name in names for block in getattr(dit, name, ())]
    before, total, skipped = [], [0.0], []

    def decide(step, inputs):
        now = watched(step, blocks[0], inputs)
        if before:
            total[0] += changed(now, before[-1])
        before.append(now)
        runs = step in (0, steps - 1) or not total[0] < threshold
        if runs:
            total[0] = 0.0
        else:
            skipped.append(step)
        return 0, len(blocks), runs

    hold_blocks(dit, blocks, decide)
    return skipped

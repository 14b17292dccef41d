"""What an image costs: seconds, FLOPs, memory. The timed region is the body of `timed`, and nothing else.

Text encoding, denoising and decoding are timed apart, with a call each. Methods under comparison take turns
in the order of `turn`, so that a drift of clocks or of other load meets them alike, and pairs of their times
have it in common. Warm-up is a first call whose figures are kept apart as the cold start, never among
the repetitions.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fovea.eval.memory import Memory, peak
from fovea.eval.telemetry import State, watch

T = TypeVar("T")

# The kernel that a CPU takes for attention: torch before 2.15 leaves it out of its count.
flop_registry.setdefault(
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    flop_registry[torch.ops.aten._scaled_dot_product_flash_attention],
)


class Timed(NamedTuple):
    """state: what else went on meanwhile, see eval/telemetry.py."""

    result: Any
    seconds: float
    memory: Memory
    state: State


def timed(fn: Callable[[], Any], device: torch.device | str) -> Timed:
    """One call of `fn`, all of its work done when the clock stops, with its peak memory and what went on.

    On CUDA the clock is a pair of events on an idle stream: what `fn` does on the host before, between and
    after its kernels lies between them and counts. On a CPU it is `perf_counter`.
    """
    device = torch.device(device)
    if device.type not in CLOCKS:
        raise ValueError(f"device={device}: only {' and '.join(CLOCKS)} can be timed")
    with peak(device) as memory, watch(device) as state:
        result, seconds = CLOCKS[device.type](fn, device)
        return Timed(result, seconds, memory(), state())


def by_clock(fn: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    start = time.perf_counter()
    result = fn()
    return result, time.perf_counter() - start


def by_events(fn: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        result = fn()
        end.record()
        torch.cuda.synchronize()
        return result, start.elapsed_time(end) / 1000


CLOCKS = {"cpu": by_clock, "cuda": by_events}


def turn(names: Sequence[T], repetition: int) -> Sequence[T]:
    """The order of a repetition, there and back: A B C, C B A, A B C, ..."""
    return names if repetition % 2 == 0 else names[::-1]


def compile_seconds() -> float:
    """What torch.compile has taken in this process so far."""
    utils = sys.modules.get("torch._dynamo.utils")
    return (
        0.0 if utils is None else float(sum(utils.compilation_time_metrics.get("_compile.compile_inner", ())))
    )


def graphs() -> int:
    """That torch.compile has compiled in this process so far."""
    utils = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])


def break_even(extra: float, dense: float, method: float) -> int | None:
    """Images after which a method has made up for the `extra` seconds of its first call over a usual one, by
    what it saves per image; None if it saves nothing."""
    saved = dense - method
    return None if saved <= 0 else math.ceil(max(extra, 0.0) / saved)


def count_flops(fn: Callable[[], Any]) -> tuple[Any, int]:
    """The result and FLOPs of a call, 2 per multiply-add of products, convolutions and attention alone.

    torch's own counter, which sees attention on every backend, as fvcore and calflops do not, once the fused
    path of nn.MultiheadAttention is off. A pass of its own: counting is slow, and runs compiled code eagerly.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            result = fn()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return result, counter.get_total_flops()

"""The cost of an image: seconds, FLOPs and memory. The timed region is the body of `timed` and nothing else.

Text encoding, denoising and decoding are timed in separate calls. Methods under comparison alternate in the
order of `alternating`, so that drift of clocks or load affects them equally and cancels in pairs. The first
call is a warm-up, recorded separately as the cold start and not counted as a repetition.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fovea.eval.memory import Memory, peak
from fovea.eval.telemetry import State, watch

T = TypeVar("T")

# The attention kernel on a CPU; torch before 2.15 does not count it.
flop_registry.setdefault(
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    flop_registry[torch.ops.aten._scaled_dot_product_flash_attention],
)


class Timed(NamedTuple):
    """A timed call. state: what else happened during it, see eval/telemetry.py."""

    result: Any
    seconds: float
    memory: Memory
    state: State


def timed(fn: Callable[[], Any], device: torch.device | str) -> Timed:
    """Time one call of `fn` until all of its work is done, with its peak memory and state.

    On CUDA, events on an idle stream are the clock: the host's work before, between and after kernels lies
    between them and counts. On a CPU it is `perf_counter`.
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


def alternating(names: Sequence[T], repetition: int) -> Sequence[T]:
    """Return the order of a repetition, alternating in direction: A B C, C B A, A B C, ..."""
    return names if repetition % 2 == 0 else names[::-1]


def compile_seconds() -> float:
    """Seconds spent by torch.compile in this process so far."""
    utils = sys.modules.get("torch._dynamo.utils")
    return (
        0.0 if utils is None else float(sum(utils.compilation_time_metrics.get("_compile.compile_inner", ())))
    )


def graphs() -> int:
    """Number of graphs compiled by torch.compile in this process so far."""
    utils = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])


def count_flops(fn: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result and FLOPs of a call, 2 per multiply-add of products, convolutions and attention.

    Uses torch's counter, which, unlike fvcore and calflops, sees attention on every backend once the fused
    path of nn.MultiheadAttention is disabled. Counting needs its own pass: it is slow and runs compiled code
    eagerly.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            result = fn()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return result, counter.get_total_flops()

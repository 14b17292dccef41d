"""Peak memory of a region: of torch's CUDA allocator and of the process."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory(NamedTuple):
    """Peak memory in bytes.

    allocator: of torch's CUDA allocator; None on a CPU.
    process: resident set of the whole process.
    since_start: the process peak counts from the start of the process, because it cannot be reset.
    """

    allocator: int | None
    process: int
    since_start: bool


def reset_resident() -> bool:
    """Reset the peak of the resident set and return whether that worked: only Linux supports it."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return STATUS.is_file()


def peak_resident(since_reset: bool) -> int:
    if since_reset:
        return (
            next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if "VmHWM" in line) * 1024
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def peak(device: torch.device | str) -> Iterator[Callable[[], Memory]]:
    """Yield a function that returns the peak memory so far, during or after the region."""
    on_gpu = torch.device(device).type == "cuda"
    since_reset = reset_resident()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)

    def so_far() -> Memory:
        allocator = torch.cuda.max_memory_allocated(device) if on_gpu else None
        return Memory(allocator, peak_resident(since_reset), not since_reset)

    yield so_far

"""What a call of a cell may take: time, and memory."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class TimedOut(Exception):
    """A call took longer than cell_timeout."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raises TimedOut within, when so many seconds are over; None for no limit. What waits for a device is
    stopped when it comes back from there. Only the main thread can be stopped: that is where cells run."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimedOut(f"a call took longer than cell_timeout={seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def out_of_memory(error: BaseException) -> bool:
    """Of a GPU, of Python, or of torch's allocator on the CPU, whose error has no class of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in "".join(map(repr, error.args))

"""Limits of one call of a cell: time and memory."""

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
    """Raise TimedOut in the block after this many seconds; None for no limit. A call that waits for a device
    is interrupted when it returns to Python. Only the main thread, where cells run, can be interrupted."""
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
    """True for an out-of-memory error of a GPU, of Python, or of torch's CPU allocator, which has no error
    class of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in "".join(map(repr, error.args))

"""Write images to disk in the background while the next batch is made on another device."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Writes at most one batch while the next is made, so that at most two are in memory."""

    def __init__(self) -> None:
        self._pool, self._last = ThreadPoolExecutor(1, "writing"), Future[None]()
        self._last.set_result(None)

    def __call__(self, work: Callable[[], None], background: bool) -> None:
        """Run `work`, in a thread if background; on the CPU it would compete with the timed work, so it is
        run at once. Raises the error of the previous work, or of this one if it is run at once."""
        self.wait()
        if background:
            self._last = self._pool.submit(work)
        else:
            work()

    def wait(self) -> None:
        """Wait until everything is on disk. Raises the error of the last work, once."""
        last, self._last = self._last, Future[None]()
        self._last.set_result(None)
        last.result()

    def close(self) -> None:
        self._pool.shutdown()

"""Images are put on the disk beside the batch that comes next, where that is made by another device."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writing:
    """At most one batch is written while the next one is made, so that no more than two are in memory."""

    def __init__(self) -> None:
        self._pool, self._last = ThreadPoolExecutor(1, "writing"), Future[None]()
        self._last.set_result(None)

    def __call__(self, work: Callable[[], None], beside: bool) -> None:
        """beside: on a processor it would share the cores with what is timed, and is done at once. Raises
        what the work before has raised, or, if not beside, this one."""
        self.wait()
        if beside:
            self._last = self._pool.submit(work)
        else:
            work()

    def wait(self) -> None:
        """Until all is on the disk. Raises what the last work has raised, once."""
        last, self._last = self._last, Future[None]()
        self._last.set_result(None)
        last.result()

    def close(self) -> None:
        self._pool.shutdown()

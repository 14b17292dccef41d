"""Let a worker leave when its launcher's library says so in a signal handler, whatever it is doing."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], Any]


class Leaving(KeyboardInterrupt):
    """A signal handler raised `why`: it concerns the process, and is no failure of the cell at work."""

    def __init__(self, why: BaseException):
        super().__init__(str(why))
        self.why = why


@contextmanager
def leaving_on(*numbers: signal.Signals) -> Iterator[None]:
    """Raise what the handlers of these signals raise, such as SystemExit, at the end of the block: within it,
    `execute.Runner` would take it for an error of the cell at work, and go on with the next."""

    def leaving(handler: Handler) -> Handler:
        def leave(number: int, frame: Any) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                raise Leaving(error) from None

        return leave

    try:
        with replaced(numbers, leaving):
            yield
    except Leaving as leave:
        raise leave.why from None


@contextmanager
def replaced(numbers: Iterable[signal.Signals], by: Callable[[Handler], Handler]) -> Iterator[None]:
    """Replace the handlers of these signals for the block, those that are functions. No other thread than the
    main one may: there, nothing is replaced."""
    found: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number, handler in handlers.items():
        signal.signal(number, by(handler))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

"""Let a worker leave when its launcher's library says so in a signal handler, whatever it is doing."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Leaving(KeyboardInterrupt):
    """A signal handler raised `why`: it concerns the process, and is no failure of the cell at work."""

    def __init__(self, why: BaseException):
        super().__init__(str(why))
        self.why = why


@contextmanager
def leaving_on(*numbers: signal.Signals) -> Iterator[None]:
    """Raise what the handlers of these signals raise, such as SystemExit, at the end of the block: within it,
    `execute.Runner` would take it for an error of the cell at work, and go on with the next."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in numbers}
    handlers: dict[int, Any] = {number: handler for number, handler in found.items() if callable(handler)}

    def leave(number: int, frame: Any) -> None:
        try:
            handlers[number](number, frame)
        except BaseException as error:
            raise Leaving(error) from None

    for number in handlers:
        signal.signal(number, leave)
    try:
        yield
    except Leaving as leaving:
        raise leaving.why from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

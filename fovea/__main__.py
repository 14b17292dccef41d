"""Fovea: how much faster does an acceleration method make a diffusion transformer, and what does the speed
cost?

    python run.py                                        the embedded default, on a CPU, in minutes
    python run.py method=ras model=lumina sweep=ratio    conf/ has the models, methods, sweeps and metrics
    python run.py experiment=ras_table1 scale=tiny       a paper's table beside what it prints
    python run.py plan=true                              what would run, what is done, how long it takes
    python run.py plan=true on=h100                      and a forecast on a GPU that is not here
    python run.py rescore=results/NAME eval=full         other metrics over stored images; no model needed

    python run.py list=models                            what there is: methods, metrics, studies, ...
    python run.py show=results/NAME                      its table again; with logger=wandb it is logged later
    python run.py compare=[results/A,results/B]          what changed from one to the other, and how surely
    python run.py merge=[results/A,results/B] name=NEW   several machines, or several parts of a grid, as one

Any key of conf/ can be set: method.ratio=0.3 n=48 seeds=[0,1] model.weights=random logger=wandb
results=FOLDER prompts=coco2014 metric=[psnr,fid] metric.fid.reference.path=FOLDER

The last line of stdout is one JSON object. Exit: 0 done, 2 refused, 3 a cell failed or lacks
images, 4 the results cannot be written, 130 interrupted, 143 terminated.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process received a signal; SIGTERM stops a study like Ctrl-C."""

    def __init__(self, number: int):
        self.number = number


def main(arguments: list[str]) -> int:
    """Run a command and return the exit code. Signals and streams are unchanged, so programs may call it."""
    if {"-h", "--help"} & set(arguments):
        from fovea.study.commands.list import help_text

        print(__doc__, help_text(), sep="\n")
        return 0
    from fovea.study.config.errors import Refused
    from fovea.study.streams import plain

    try:
        _check_system()
        from fovea.study.commands.command import execute  # light, so that a refusal is fast

        return execute(arguments)
    except Refused as refusal:
        print(f"refused: {plain(str(refusal))}", file=sys.stderr)
        return 2
    except OSError as error:
        from fovea.study.files import FULL, Unwritable

        if not (isinstance(error, Unwritable) or error.errno in FULL):
            raise
        print(f"stopped: {plain(str(error))}", file=sys.stderr)
        return 4
    except KeyboardInterrupt as stop:
        return _report_stop(getattr(stop, "number", signal.SIGINT))


def _check_system() -> None:
    from importlib.util import find_spec

    from fovea.study.config.errors import Refused

    if find_spec("fcntl") is None:
        raise Refused("Fovea runs on Linux and macOS; on Windows within WSL, the Windows Subsystem for Linux")
    try:
        os.getcwd()
    except OSError:
        raise Refused("the working folder is gone; change to another one") from None


def _report_stop(number: int) -> int:
    """Print how to continue. Return the exit code for the signal."""
    what = "terminated" if number == signal.SIGTERM else "interrupted"
    print(f"\n{what}: what is finished is kept; continue with the same command", file=sys.stderr, flush=True)
    return 128 + number


def program() -> int:
    """Run the process: `main`, with signal handlers and streams that guarantee an exit code."""
    caught: list[int] = []

    def leave(number: int, _: Any = None) -> None:
        os._exit(_report_stop(number))

    def stop(number: int, _: Any) -> None:
        """Let running work clean up; a second signal exits at once."""
        caught.append(number)
        _handle(leave)
        raise Stopped(number)

    def ignored(error: Any) -> None:
        """Handle an exception where none can propagate, such as in a finalizer."""
        leave(caught[0]) if caught else sys.__unraisablehook__(error)

    _handle(leave)
    sys.unraisablehook = ignored
    from fovea.study.streams import flush, tolerate_errors

    tolerate_errors()
    try:
        _handle(stop)
        code = main(sys.argv[1:])
    except BaseException:  # a signal, or a library's exception caused by it
        if not caught:
            raise
        code = _report_stop(caught[0])
    _handle(lambda *_: os._exit(code))
    flush()
    return code


def _handle(handler: Callable[[int, Any], None]) -> None:
    """Set the handler of each stop signal that is not ignored from outside, as by nohup."""
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(program())

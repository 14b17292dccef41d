"""A study in a process of its own that meets its end, or the end of its disk. Processes are forked from one
that has what is heavy imported and nothing run, so that each costs no more than its work."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HEAVY = ["fovea.study.run.share", "fovea.study.report.report", "fovea.study.commands.command"]


def study(
    arguments: list[str], log: Path, kill: tuple[int, float] | None = None, bytes_a_file: int = 0
) -> int:
    """The exit code of `python run.py` with these arguments, -N where signal N ended it. log: gets both
    streams. kill: signal, and after how many seconds of processor time it is sent. bytes_a_file: the longest
    file that can be written, as if the disk were full; 0 for no limit."""
    return ended(started(_run, arguments, log, kill, bytes_a_file))


def started(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that does this work."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(HEAVY)
    process = forks.Process(target=work, args=arguments)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Its exit code."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def several(arguments: list[str], logs: list[Path], kill: tuple[int, float]) -> list[int]:
    """The exit codes of as many `python run.py` at once, of which the first is killed."""
    processes = [started(_run, arguments, log, None if i else kill, 0) for i, log in enumerate(logs)]
    return [ended(process) for process in processes]


def _run(arguments: list[str], log: Path, kill: tuple[int, float] | None, bytes_a_file: int) -> None:
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["run.py", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server that forked this ignores it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if kill:
        threading.Thread(target=_kill, args=kill, daemon=True).start()
    if bytes_a_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    from fovea.__main__ import program

    began = time.process_time()
    code = program()
    with open(log, "a") as file:
        file.write(f"\nseconds: {time.process_time() - began}\n")
    os._exit(code)


def _kill(number: int, seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        time.sleep(0.002)
    os.kill(os.getpid(), number)


def seconds(log: Path) -> float:
    """Of processor time, as the last run that ended wrote it."""
    return float(log.read_text().rpartition("seconds: ")[2])

"""A study in a process of its own that meets its end, or the end of its disk. Processes are forked from one
that has what is heavy imported and nothing run, so that each costs no more than its work; `fresh` ones are
started as a user does."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

HEAVY = [
    *("fovea.study.run.share", "fovea.study.report.report", "fovea.study.commands.command", "hydra"),
    *("fovea.study.run.progress", "fovea.study.report.terminal", "fovea.models.lumina"),
    "diffusers.pipelines.lumina2.pipeline_lumina2",
]
CODES = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}  # that a signal ends in
PHASES = ("planning", "loading", "generating", "scoring", "reporting")


class Process(Protocol):
    """Of multiprocessing, or `Fresh`."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def join(self) -> None: ...


@dataclass(frozen=True)
class Strike:
    """A signal, and when it is sent: in which phase, after how many seconds of processor time in it, or at
    its end if that comes first."""

    number: int
    phase: str
    seconds: float


def study(arguments: list[str], log: Path, bytes_a_file: int = 0) -> int:
    """The exit code of `python run.py` with these arguments, -N where signal N ended it. log: gets both
    streams. bytes_a_file: the longest file that can be written, as if the disk were full; 0 for no limit."""
    return ended(running(arguments, log, bytes_a_file))


def running(arguments: list[str], log: Path, bytes_a_file: int = 0) -> Any:
    """The process of such a study."""
    return started(_run, arguments, log, bytes_a_file)


def struck(study: Path, arguments: list[str], log: Path, strike: Strike, fresh: bool = False) -> int:
    """The exit code where a signal is sent to it: of Ctrl-C to all its processes, as a terminal does."""
    seen = Seen(study, log)
    process = Fresh(arguments, log) if fresh else running(arguments, log)
    seen.follow(process, strike)
    code = ended(process)
    with suppress(ProcessLookupError):  # what it has started for itself, and is gone in a moment, too
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    return code


def timed(study: Path, arguments: list[str], log: Path) -> tuple[int, dict[str, float]]:
    """The exit code, and how many seconds of processor time each phase took."""
    seen = Seen(study, log)
    process = running(arguments, log)
    spent = seen.follow(process, None)
    return ended(process), spent


def started(work: Callable[..., None], *arguments: Any) -> Any:
    """A process that does this work."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(HEAVY)
    process = forks.Process(target=work, args=arguments)
    process.start()
    return process


def barrier(processes: int) -> Any:
    """At which so many of them wait for one another."""
    return multiprocessing.get_context("forkserver").Barrier(processes)


def ended(process: Process) -> int:
    """Its exit code."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Fresh:
    """`python run.py` as it is."""

    def __init__(self, arguments: list[str], log: Path):
        root = Path(__file__).resolve().parents[2]
        with open(log, "a") as stream:
            command = [sys.executable, "run.py", *arguments]
            self.process = subprocess.Popen(
                command, cwd=root, stdout=stream, stderr=stream, start_new_session=True
            )
        self.pid = self.process.pid

    @property
    def exitcode(self) -> int | None:
        return self.process.poll()

    def join(self) -> None:
        self.process.wait()


class Seen:
    """What can be seen of a study from outside while it runs. Made before it starts."""

    def __init__(self, study: Path, log: Path):
        self.study, self.log = study, log
        self.begun = self.size = log.stat().st_size if log.exists() else 0
        self.said, self.records, self.table = b"", self._records(), self._table()

    def phase(self) -> int | None:
        """Of `PHASES`; None before there is any."""
        if self.log.exists() and self.log.stat().st_size != self.size:
            self.size, self.said = self.log.stat().st_size, self.log.read_bytes()[self.begun :]
        if b"scoring and reporting" in self.said:
            return 3 if self._table() == self.table else 4
        if b"loading " in self.said:
            return 1 if self._records() <= self.records else 2
        return 0 if self.said else None

    def follow(self, process: Process, strike: Strike | None) -> dict[str, float]:
        """Until it has ended or is struck. Gives the seconds of processor time that it had in each phase."""
        spent: list[float] = [0.0] * len(PHASES)
        before, wanted = 0.0, PHASES.index(strike.phase) if strike else len(PHASES)
        while process.exitcode is None:
            at, now = self.phase(), _processor_seconds(process.pid)
            if at is not None and now is not None:
                spent[at], before = spent[at] + now - before, now
                if strike and (at > wanted or (at == wanted and spent[at] >= strike.seconds)):
                    with suppress(ProcessLookupError):  # it has just ended
                        (os.killpg if strike.number == signal.SIGINT else os.kill)(process.pid, strike.number)
                    break
            time.sleep(0.002)
        return dict(zip(PHASES, spent, strict=True))

    def _records(self) -> set[Path]:
        return set(self.study.glob("cells/*/records/*.jsonl"))

    def _table(self) -> int | None:
        with suppress(FileNotFoundError):
            return (self.study / "table.md").stat().st_mtime_ns
        return None


def _processor_seconds(pid: int | None) -> float | None:
    """That a process has had; None of one that is gone."""
    with suppress(OSError, TypeError):
        return time.clock_gettime(~pid << 3 | 2)  # Linux's clock of the whole of a process
    return None


def several(arguments: list[str], study: Path, logs: Sequence[Path], strike: Strike) -> list[int]:
    """The exit codes of as many `python run.py` at once, of which the first is struck."""
    seen = Seen(study, logs[0])
    processes = [running(arguments, log) for log in logs]
    seen.follow(processes[0], strike)
    return [ended(process) for process in processes]


def _run(arguments: list[str], log: Path, bytes_a_file: int = 0) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):  # the server that forked this ignores the first
        signal.signal(number, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.write(1, b"\n")  # it has begun
    sys.argv = ["run.py", *arguments]
    if bytes_a_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    from fovea.__main__ import program

    os._exit(program())

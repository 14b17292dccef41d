"""A study in a process of its own that meets its end, or the end of its disk. Processes are forked from one
that has what is heavy imported and nothing run, so that each costs no more than its work; `fresh` ones are
started as a user does."""

import gc
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
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
    """A signal, and when it is sent: in which phase, before which of its steps, or at its end if that comes
    first."""

    number: int
    phase: str
    step: int


def study(arguments: list[str], log: Path, bytes_a_file: int = 0) -> int:
    """The exit code of `python run.py` with these arguments, -N where signal N ended it. log: gets both
    streams. bytes_a_file: the longest file that can be written, as if the disk were full; 0 for no limit."""
    return ended(running(arguments, log, bytes_a_file))


def running(arguments: list[str], log: Path, bytes_a_file: int = 0, steps: "Steps | None" = None) -> Any:
    """The process of such a study."""
    return started(_run, arguments, log, bytes_a_file, steps)


def struck(study: Path, arguments: list[str], log: Path, strike: Strike) -> int:
    """The exit code where a signal is sent to it: of Ctrl-C to all its processes, as a terminal does."""
    return _all_ended(running(arguments, log, steps=Steps(study, log, strike)))


def struck_fresh(study: Path, arguments: list[str], log: Path, number: int, phase: str) -> int:
    """The exit code of one that is started as a user does, and gets a signal once it is in a phase."""
    seen = Seen(study, log)
    process = Fresh(arguments, log)
    while process.exitcode is None and (seen.phase() or 0) < PHASES.index(phase):
        time.sleep(0.002)
    process.process.send_signal(number)
    return _all_ended(process)


def counted(study: Path, arguments: list[str], log: Path) -> tuple[int, dict[str, int]]:
    """The exit code, and how many steps each phase took."""
    steps = Steps(study, log)
    code = ended(running(arguments, log, steps=steps))
    return code, steps.taken()


def _all_ended(process: "Process") -> int:
    code = ended(process)
    with suppress(ProcessLookupError):  # what it has started for itself, and is gone in a moment, too
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    return code


def started(work: Callable[..., None], *arguments: Any) -> Any:
    """A process that does this work."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(HEAVY)
    process = forks.Process(target=_begun, args=(work, *arguments))
    process.start()
    return process


def _begun(work: Callable[..., None], *arguments: Any) -> None:
    gc.freeze()  # what the server has imported is not searched for garbage in each process
    work(*arguments)


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

    def _records(self) -> set[Path]:
        return set(self.study.glob("cells/*/records/*.jsonl"))

    def _table(self) -> int | None:
        with suppress(FileNotFoundError):
            return (self.study / "table.md").stat().st_mtime_ns
        return None


class Steps:
    """How often the process of a study opens, makes, moves or removes a file (PEP 578), in each phase. It
    counts for itself, and strikes itself: the load of the machine changes nothing."""

    def __init__(self, study: Path, log: Path, strike: Strike | None = None):
        self.strike, self.counts = strike, dict.fromkeys(PHASES, 0)
        self._seen, self._file = Seen(study, log), log.with_suffix(".steps")

    def count(self) -> None:
        """Those of this process, from now on."""
        counting = threading.Lock()

        def step(name: str, _: Any) -> None:
            if not name.startswith(("open", "os.")) or not counting.acquire(blocking=False):
                return  # the counting's own, or at the same time as another
            try:
                self._step(self._seen.phase())
            finally:
                counting.release()

        sys.addaudithook(step)

    def end(self) -> None:
        """Of the study: what was to be struck and was not is struck now."""
        if self.strike:
            if self.strike.number != signal.SIGKILL:
                signal.signal(self.strike.number, signal.SIG_DFL)
            self._hit(self.strike)
        self._file.write_text(json.dumps(self.counts))

    def taken(self) -> dict[str, int]:
        """By a process that has ended."""
        return json.loads(self._file.read_text())

    def _step(self, phase: int | None) -> None:
        if phase is None:
            return
        self.counts[PHASES[phase]] += 1
        strike = self.strike
        if strike and (phase, self.counts[PHASES[phase]]) > (PHASES.index(strike.phase), strike.step):
            self._hit(strike)

    def _hit(self, strike: Strike) -> None:
        self.strike = None
        (os.killpg if strike.number == signal.SIGINT else os.kill)(os.getpid(), strike.number)


def several(arguments: list[str], study: Path, logs: Sequence[Path], strike: Strike) -> list[int]:
    """The exit codes of as many `python run.py` at once, of which the first is struck."""
    steps = [Steps(study, logs[0], strike), *(None for _ in logs[1:])]
    processes = [running(arguments, log, steps=own) for log, own in zip(logs, steps, strict=True)]
    return [ended(process) for process in processes]


def _run(arguments: list[str], log: Path, bytes_a_file: int = 0, steps: Steps | None = None) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):  # the server that forked this ignores the first
        signal.signal(number, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    if steps:
        steps.count()
    os.write(1, b"\n")  # it has begun
    sys.argv = ["run.py", *arguments]
    if bytes_a_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    from fovea.__main__ import program

    code = program()
    if steps:
        steps.end()
    os._exit(code)

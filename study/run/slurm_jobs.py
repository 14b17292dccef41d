"""Jobs submitted through submitit: which of them still run, why others failed, and how to cancel them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import dropwhile
from math import inf
from typing import Any

from fovea.study.run.leaving import Handler, replaced

ASK = 20.0  # seconds between two calls of squeue
VISIBLE = 10.0  # seconds until a file that a node has written is visible here
END = 10.0  # seconds that cancelled local jobs have to end


@dataclass
class Queue:
    """Jobs of a Slurm cluster. submitit learns that a job has ended from its result or from sacct, which
    clusters without accounting lack: a job that squeue no longer lists has ended, too.

    listed: ids that squeue listed when it was last asked.
    asked: when that was, on the monotonic clock.
    """

    jobs: list[Any]
    listed: frozenset[str] = frozenset()
    asked: float = -inf

    def count_unfinished(self) -> int:
        there = [job for job in self.jobs if not job.done()]
        if there and time.monotonic() - self.asked > ASK:
            found = _listed_jobs()
            self.listed = frozenset(job.job_id for job in there) if found is None else found
            self.asked = time.monotonic()
        return sum(job.job_id in self.listed for job in there)

    def cancel(self) -> None:
        for job in self.jobs:
            job.cancel(check=False)

    def problem(self, job: Any) -> str | None:
        """Return why a job that has ended failed, without the log and the traceback that submitit quotes;
        None if it did not fail."""
        deadline = time.monotonic() + VISIBLE
        while not job.paths.result_pickle.exists() and time.monotonic() < deadline:
            time.sleep(1.0)
        return _problem(job)


class LocalQueue(Queue):
    """submitit's processes on this machine."""

    def count_unfinished(self) -> int:
        return sum(not job.done() for job in self.jobs)

    def cancel(self) -> None:
        """Stop the processes. submitit sends SIGINT, which they ignore if this process does, as one that a
        script starts with & does: these get SIGTERM until they have ended."""
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            super().cancel()
            return
        deadline = time.monotonic() + END
        while (running := [job for job in self.jobs if not job.done()]) and time.monotonic() < deadline:
            for job in running:
                os.kill(int(job.job_id), signal.SIGTERM)
            time.sleep(0.5)

    def problem(self, job: Any) -> str | None:
        return _problem(job)


def _listed_jobs() -> frozenset[str] | None:
    """Return the ids of this user's jobs that have not ended; None if squeue cannot tell."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return frozenset(told.stdout.split())
    return None


def _problem(job: Any) -> str | None:
    log = f"its log: {job.paths.stderr}"
    if not job.paths.result_pickle.exists():
        return f"it ended without a result (cancelled, killed or out of memory); {log}"
    error = job.exception()
    return error and f"{_last_exception(str(error))}; {log}"


def _last_exception(report: str) -> str:
    """Return the exception below the last call of a traceback, in one line; the report ends with a rule."""
    lines = report.splitlines()
    rule = max((i for i, line in enumerate(lines) if set(line) == {"-"}), default=len(lines))
    call = max((i for i, line in enumerate(lines[:rule]) if line.startswith('  File "')), default=-1)
    found = dropwhile(lambda line: line.startswith("    "), lines[call + 1 : rule])
    return " ".join(" ".join(found).split())


@contextmanager
def postponed() -> Iterator[None]:
    """Handle a first SIGINT or SIGTERM after the block, since only jobs that are known can be cancelled, and
    a second one at once."""
    caught: list[int] = []

    def catching(handler: Handler) -> Handler:
        def catch(number: int, _: Any) -> None:
            caught.append(number)
            signal.signal(number, handler)

        return catch

    try:
        with replaced((signal.SIGINT, signal.SIGTERM), catching):
            yield
    finally:
        if caught:
            signal.raise_signal(caught[0])

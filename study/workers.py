"""Take part in a study: join the processes at work on it, lease parts of the work, and clean up after lost
workers. presence.py defines the files in the folder and when a worker counts as lost."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO

from fovea.study.config.errors import Refused
from fovea.study.files import UNFINISHED, Unwritable, unwritable
from fovea.study.presence import (
    BEAT,
    DOOR,
    PATIENCE,
    WorkerInfo,
    at_work,
    boot_id,
    is_registered,
    leases,
    lock,
    lock_released,
    lock_visible,
    owner_of,
    read,
)

POLL = 0.05  # seconds between attempts to take a lease that is held briefly
TRIES = 100  # attempts to write into a folder that other processes create and remove


@contextmanager
def joined(study: Path, plan: str | None, alone: Callable[[], None], session: str = "") -> Iterator["Worker"]:
    """Join the work on a study. Raises Refused if another live process makes something else.

    plan, session: see `WorkerInfo`.
    alone: called first if no other process is at work; nobody can join while it runs.
    """
    worker = Worker(study, plan, session)
    with worker.registered():
        with worker.holding(DOOR):
            for other in worker.others():
                if (plan is None or other.plan != plan) and worker.is_alive(other):
                    raise Refused(
                        f"{study}: another process ({other}) works on this study; wait for it, or give this "
                        "run another name=..."
                    )
            if not worker.others():
                alone()
            worker.admit()
        yield worker


class Worker:
    """This process among those at work on a study. notes: remarks on the file system, for the user."""

    def __init__(self, study: Path, plan: str | None, session: str):
        self.study, self.folder, self.id = study, study / ".workers", token_hex(8)
        self.info = {"host": socket.gethostname(), "process": os.getpid(), "kernel": boot_id()}
        self.info |= {"plan": plan, "session": session}
        self.notes: list[str] = []
        self._file, self._waiting = (self.folder / f"{self.id}.{what}" for what in ("worker", "waiting"))
        # per file of another worker: its modification time, and when that was first observed (monotonic)
        self._last_touch: dict[str, tuple[int, float]] = {}
        self._leaving, self._lost = threading.Event(), False

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Register this process with a locked file that is touched regularly. The file is deleted last, so
        that no lease is ever without its owner's file."""
        with self._open() as stream:
            beating = threading.Thread(target=self._beat, args=(stream.fileno(),), daemon=True)
            beating.start()
            try:
                yield
            finally:
                self._leaving.set()
                beating.join()
                with suppress(OSError):
                    self.clear()
                for name in leases(self.folder):
                    self.release(name)
                for file in (self._file, self._waiting):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # not empty: other workers are there
                    self.folder.rmdir()

    def admit(self) -> None:
        self._waiting.rename(self._file)

    def check(self) -> None:
        """Raise Unwritable if other processes took this one for lost: its further work would not count."""
        if self._lost:
            self._check_folder()
            raise Unwritable(
                f"{self.study}: nothing was heard of this process for {PATIENCE:.0f} s, so that others took "
                "its work over; what is finished is kept: repeat the command"
            )

    def _check_folder(self) -> None:
        """Raise Unwritable if the study's folder is no longer where it was."""
        if not self.folder.is_dir():
            raise Unwritable(
                f"{self.study} was moved, renamed or deleted while this process worked on it; what is "
                "finished went with it: move it back, in place of the last images, which may be there by "
                "now, and repeat the command"
            )

    def take(self, name: str) -> bool:
        """Try to take a lease; True if this process holds it now. The lease of a lost worker becomes free
        after `clear`."""
        lease = self.folder / f"{name}.lease"
        try:
            lease.symlink_to(self.id)
        except FileExistsError:
            # over a network, the reply to a successful call may be lost and the call repeated
            return owner_of(lease) == self.id
        except OSError as error:
            self._check_folder()
            raise unwritable(lease, error) from error
        return True

    def release(self, name: str) -> None:
        lease = self.folder / f"{name}.lease"
        if owner_of(lease) == self.id:
            lease.unlink(missing_ok=True)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Wait for a lease, hold it, and release it."""
        while not self.take(name):
            self.clear()
            time.sleep(POLL)
        try:
            yield
        finally:
            self.release(name)

    def others(self) -> list[WorkerInfo]:
        """Return the other admitted workers that are not lost."""
        self.clear()
        return [known for known in at_work(self.study) if known.id != self.id]

    def is_alive(self, other: WorkerInfo) -> bool:
        """True if another worker lives, as soon as that is known: from its lock, from a new touch of its
        file, or after PATIENCE seconds."""
        file = self.folder / f"{other.id}.worker"
        before = read(file)[1]
        while not self._is_gone(file):
            info, touched = read(file)
            if touched != before or lock_visible(info):
                return bool(info)
            time.sleep(POLL)
        self._remove(file, other.id)
        return False

    def clear(self) -> None:
        """Remove the files and leases of lost workers."""
        for file in [*self.folder.glob("*.worker"), *self.folder.glob("*.waiting")]:
            if file.stem != self.id and self._is_gone(file):
                self._remove(file, file.stem)
        for file in self.folder.glob("*~*"):  # the process that was removing a lost worker may be lost itself
            who, _, by = file.name.partition("~")
            if by != self.id and not is_registered(self.folder, by):
                self._remove(file, who)

    def remove_lost(self, who: str) -> None:
        self._remove(self.folder / f"{who}.worker", who)

    def _remove(self, file: Path, who: str) -> None:
        grave = self.folder / f"{who}~{self.id}"
        try:
            file.rename(grave)
        except FileNotFoundError:
            return  # another process removes it
        for name, owner in leases(self.folder).items():
            if owner == who:
                (self.folder / f"{name}.lease").unlink(missing_ok=True)
        grave.unlink(missing_ok=True)

    def _is_gone(self, file: Path) -> bool:
        info, touched = read(file)
        if info and lock_released(file, info):
            return True
        before, since = self._last_touch.get(file.name, (None, 0.0))
        if touched != before:
            self._last_touch[file.name] = touched, time.monotonic()
            return False
        return time.monotonic() - since > PATIENCE

    def _open(self) -> IO[str]:
        """Create this worker's file. It is locked and complete before it appears under its name."""
        part = self.folder / UNFINISHED.format(self.id)
        for _ in range(TRIES):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(self.folder, error) from error
            with ExitStack() as held:
                try:
                    stream = held.enter_context(open(part, "w"))
                    self.notes = lock(stream, self.study)
                    stream.write(json.dumps(self.info | {"locked": not self.notes}))
                    stream.flush()
                    part.rename(self._waiting)
                except FileNotFoundError:
                    # another process removed the folder on leaving, or this temporary file on starting
                    time.sleep(POLL)
                    continue
                except OSError as error:
                    with suppress(OSError):
                        part.unlink()
                    raise unwritable(part, error) from error
                held.pop_all()
                return stream
        raise Unwritable(f"{part} cannot be written: {self.folder} is removed again and again")

    def _beat(self, handle: int) -> None:
        while not self._leaving.wait(BEAT):
            with suppress(OSError):  # a network file system may be unreachable for a while
                os.utime(handle)
                self._lost = not is_registered(self.folder, self.id)

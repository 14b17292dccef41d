"""Take part in a study: join those at work on it, have some of the work on lease, and clear away after who is
gone. What lies in the folder, and when one is gone, is in presence.py."""

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
    Known,
    at_work,
    ended,
    kernel,
    leases,
    lock,
    locks_here,
    owner_of,
    read,
    there,
)

POLL = 0.05  # seconds between tries at a lease that is held for moments
TRIES = 100  # at a folder that others make and remove


@contextmanager
def joined(study: Path, plan: str | None, alone: Callable[[], None], session: str = "") -> Iterator["Worker"]:
    """This process at work on a study. plan, session: see `Known`. alone: what is done first where nobody
    else is at work, and nobody joins meanwhile. Refused where one of the others makes something else."""
    worker = Worker(study, plan, session)
    with worker.registered():
        with worker.having(DOOR):
            for other in worker.others():
                if (plan is None or other.plan != plan) and worker.hears(other):
                    raise Refused(
                        f"{study}: another process ({other}) works on this study; wait for it, or give this "
                        "run another name=..."
                    )
            if not worker.others():
                alone()
            worker.let_in()
        yield worker


class Worker:
    """This process among those that work on a study. notes: what there is to say of the place."""

    def __init__(self, study: Path, plan: str | None, session: str):
        self.study, self.folder, self.id = study, study / ".workers", token_hex(8)
        self.about = {"host": socket.gethostname(), "process": os.getpid(), "kernel": kernel()}
        self.about |= {"plan": plan, "session": session}
        self.notes: list[str] = []
        self._file, self._waiting = (self.folder / f"{self.id}.{what}" for what in ("worker", "waiting"))
        self._seen: dict[
            str, tuple[int, float]
        ] = {}  # when others were touched, and when that was first seen
        self._left, self._lost = threading.Event(), False

    @contextmanager
    def registered(self) -> Iterator[None]:
        """With a file of its own, locked and touched. It goes last: no lease is ever without its owner's."""
        with self._open() as stream:
            beating = threading.Thread(target=self._beat, args=(stream.fileno(),), daemon=True)
            beating.start()
            try:
                yield
            finally:
                self._left.set()
                beating.join()
                with suppress(OSError):
                    self.clear()
                for name in leases(self.folder):
                    self.release(name)
                for file in (self._file, self._waiting):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # others are there
                    self.folder.rmdir()

    def let_in(self) -> None:
        self._waiting.rename(self._file)

    def check(self) -> None:
        """Raises Unwritable where others think that this process is gone: nothing of it would count."""
        if self._lost:
            raise Unwritable(
                f"{self.study}: nothing was heard of this process for {PATIENCE:.0f} s, so that others took "
                "its work over; what is finished is kept: repeat the command"
            )

    def take(self, name: str) -> bool:
        """Whether this process has the lease now. One of a worker that is gone is free after `clear`."""
        lease = self.folder / f"{name}.lease"
        try:
            lease.symlink_to(self.id)
        except FileExistsError:
            return owner_of(lease) == self.id  # a network's answer may be lost, and asked again
        except OSError as error:
            raise unwritable(lease, error) from error
        return True

    def release(self, name: str) -> None:
        lease = self.folder / f"{name}.lease"
        if owner_of(lease) == self.id:
            lease.unlink(missing_ok=True)

    @contextmanager
    def having(self, name: str) -> Iterator[None]:
        """Waits for a lease and gives it back."""
        while not self.take(name):
            self.clear()
            time.sleep(POLL)
        try:
            yield
        finally:
            self.release(name)

    def others(self) -> list[Known]:
        """Those who were let in and are not gone."""
        self.clear()
        return [known for known in at_work(self.study) if known.id != self.id]

    def hears(self, other: Known) -> bool:
        """Whether another one lives: its lock says so at once, else it is heard of, or patience ends."""
        file = self.folder / f"{other.id}.worker"
        before = read(file)[1]
        while not self._gone(file):
            about, touched = read(file)
            if touched != before or locks_here(about):
                return bool(about)
            time.sleep(POLL)
        self._bury(file, other.id)
        return False

    def clear(self) -> None:
        """Takes their leases away from those who are gone."""
        for file in [*self.folder.glob("*.worker"), *self.folder.glob("*.waiting")]:
            if file.stem != self.id and self._gone(file):
                self._bury(file, file.stem)
        for file in self.folder.glob("*~*"):  # of one who was buried by one who is gone, too
            who, _, by = file.name.partition("~")
            if by != self.id and not there(self.folder, by):
                self._bury(file, who)

    def bury(self, who: str) -> None:
        """One that is known to be gone."""
        self._bury(self.folder / f"{who}.worker", who)

    def _bury(self, file: Path, who: str) -> None:
        grave = self.folder / f"{who}~{self.id}"
        try:
            file.rename(grave)
        except FileNotFoundError:
            return  # another one does
        for name, owner in leases(self.folder).items():
            if owner == who:
                (self.folder / f"{name}.lease").unlink(missing_ok=True)
        grave.unlink(missing_ok=True)

    def _gone(self, file: Path) -> bool:
        about, touched = read(file)
        if about and ended(file, about):
            return True
        before, since = self._seen.get(file.name, (None, 0.0))
        if touched != before:
            self._seen[file.name] = touched, time.monotonic()
            return False
        return time.monotonic() - since > PATIENCE

    def _open(self) -> IO[str]:
        """Its file: locked, then whole, then there."""
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
                    stream.write(json.dumps(self.about | {"locked": not self.notes}))
                    stream.flush()
                    part.rename(self._waiting)
                except (
                    FileNotFoundError
                ):  # the folder went with who left last, or the file with who cleared it
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
        while not self._left.wait(BEAT):
            with suppress(OSError):  # a network that is away for a while
                os.utime(handle)
                self._lost = not there(self.folder, self.id)

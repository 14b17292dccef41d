"""Who works on a study: any number of processes with the same plan, each with some of the work on lease.

    .workers/ID.worker     one per process: who it is and what it makes, as JSON; touched every BEAT seconds,
                           and locked for as long as the process lives where the file system has locks
    .workers/ID.waiting    the same before it was let in
    .workers/NAME.lease    a symbolic link to the ID of who has NAME: made in one stroke, over a network too
    .workers/ID~ID         a worker that is gone, and the one who takes its leases away

A worker is gone if it ran under this very kernel and nothing locks its file any more, or if its file was not
touched for PATIENCE seconds by the steady clock of whoever waits: no time of day is compared, so that a clock
that jumps takes no work from anybody. Who renames the file of one that is gone, which only one can, takes its
leases away; an ID is never used again. Leases need no flock: it only tells at once what patience tells later.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from fovea.study.config.errors import Refused
from fovea.study.files import UNFINISHED, Unwritable, unwritable

BEAT, PATIENCE = 5.0, 60.0  # seconds
POLL = 0.05  # seconds between tries at a lease that is held for moments
TRIES = 100  # at a folder that others make and remove
DOOR = "door"  # the lease of who joins: one at a time


@dataclass(frozen=True)
class Known:
    """What a worker says of itself. plan: digest of what it makes, which others of the same may join in; None
    if it works alone. session: what its records go by. heard: when its file was last touched, in seconds.
    has: names of its leases."""

    id: str
    host: str
    process: int
    plan: str | None
    session: str
    heard: float
    has: tuple[str, ...]

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def at_work(study: Path) -> list[Known]:
    """Who works on a study, as far as can be seen at once: one on another machine that was killed is among
    them until somebody's patience ends."""
    held = _leases(study / ".workers")
    found = []
    for file in sorted((study / ".workers").glob("*.worker")):
        about, touched = _read(file)
        if about and not _ended(file, about):
            has = tuple(sorted(name for name, owner in held.items() if owner == file.stem))
            host, process = about.get("host", "unknown"), about.get("process", 0)
            plan, session = about.get("plan"), about.get("session", "")
            found.append(Known(file.stem, host, process, plan, session, touched / 1e9, has))
    return found


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
    """This process among those that work on a study. told: what there is to say of the place."""

    def __init__(self, study: Path, plan: str | None, session: str):
        self.study, self.folder, self.id = study, study / ".workers", token_hex(8)
        self.about = {"host": socket.gethostname(), "process": os.getpid(), "kernel": _kernel()}
        self.about |= {"plan": plan, "session": session}
        self.told: list[str] = []
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
                for name in _leases(self.folder):
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
            return _owner(lease) == self.id  # a network's answer may be lost, and asked again
        except OSError as error:
            raise unwritable(lease, error) from error
        return True

    def release(self, name: str) -> None:
        lease = self.folder / f"{name}.lease"
        if _owner(lease) == self.id:
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
        before = _read(file)[1]
        while not self._gone(file):
            about, touched = _read(file)
            if touched != before or _locks_here(about):
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
            if by != self.id and not _there(self.folder, by):
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
        for name, owner in _leases(self.folder).items():
            if owner == who:
                (self.folder / f"{name}.lease").unlink(missing_ok=True)
        grave.unlink(missing_ok=True)

    def _gone(self, file: Path) -> bool:
        about, touched = _read(file)
        if about and _ended(file, about):
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
                    self.told = _lock(stream, self.study)
                    stream.write(json.dumps(self.about | {"locked": not self.told}))
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
                self._lost = not _there(self.folder, self.id)


def _there(folder: Path, who: str) -> bool:
    """Whether it has a file, be it let in meanwhile."""
    return (folder / f"{who}.waiting").exists() or (folder / f"{who}.worker").exists()


def _leases(folder: Path) -> dict[str, str]:
    """Name to the ID of who has it."""
    owners = {lease.stem: _owner(lease) for lease in folder.glob("*.lease")}
    return {name: owner for name, owner in owners.items() if owner}


def _owner(lease: Path) -> str | None:
    try:
        return os.readlink(lease)
    except OSError:
        return None


def _read(file: Path) -> tuple[dict[str, Any], int]:
    """What a worker's file says, nothing where it is not there, and when it was touched, in nanoseconds."""
    try:
        with open(file) as stream:
            touched, about = os.fstat(stream.fileno()).st_mtime_ns, json.load(stream)
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError):
        return {}, 1
    return (about if isinstance(about, dict) else {}), touched


def _ended(file: Path, about: dict[str, Any]) -> bool:
    """Whether it is known to be gone: of this kernel, and its lock free."""
    if not _locks_here(about):
        return False
    with suppress(OSError), open(file) as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def _locks_here(about: dict[str, Any]) -> bool:
    """Whether its lock can be seen."""
    return bool(about.get("locked")) and about.get("kernel") == _kernel()


def _lock(stream: IO[str], study: Path) -> list[str]:
    """What there is to say where the file system has no locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return [
            f"{study}: its file system has no locks ({why}): a process that is killed is known to be gone "
            f"after {PATIENCE:.0f} s"
        ]
    return []


def _kernel() -> str:
    """Of this start of this machine: one process may see another's lock."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()

"""The processes at work on a study, as recorded in its folder. Processes with the same plan share the work
through leases.

    .workers/ID.worker     one per process: who it is and what it makes, as JSON. Touched every BEAT
                           seconds, and locked (flock) while the process lives, where locks are supported
    .workers/ID.waiting    the same file before the process is admitted
    .workers/NAME.lease    a symbolic link to the ID of the holder: created atomically, also over a network
    .workers/ID~ID         a lost worker, and the worker that is removing its leases

A worker counts as lost if it ran under this kernel (same boot) and its file is no longer locked, or if its
file has not been touched for PATIENCE seconds. The observer measures that time with its own monotonic clock
and compares no wall-clock times, so a clock that jumps takes no work from anyone. Renaming the file of a lost
worker succeeds for only one process, and that one removes its leases. IDs are never reused. Leases do not
need flock; it only shows at once what would otherwise be known after PATIENCE seconds."""

import fcntl
import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BEAT, PATIENCE = 5.0, 60.0  # seconds
DOOR, REPORT = "door", "report"  # leases that are not shards: to join, and to write the report


@dataclass(frozen=True)
class WorkerInfo:
    """A worker, as its file describes it.

    id: random id of the worker.
    plan: digest of what it makes. Other processes with the same digest may join; None if it works alone.
    session: name of its records.
    last_seen: when its file was last touched, in seconds since the epoch.
    leases: names of its leases.
    locked: its lock can be seen and is held: it lives, even if it is suspended and not heard of.
    """

    id: str
    host: str
    process: int
    plan: str | None
    session: str
    last_seen: float
    leases: tuple[str, ...]
    locked: bool

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @property
    def shards(self) -> list[str]:
        """The leases that are shards."""
        return [name for name in self.leases if name not in (DOOR, REPORT)]


def at_work(study: Path) -> list[WorkerInfo]:
    """Return the workers on a study, as far as the folder shows: a worker killed on another machine is still
    listed until someone has waited PATIENCE seconds."""
    held = leases(study / ".workers")
    found = []
    for file in sorted((study / ".workers").glob("*.worker")):
        info, touched = read(file)
        if info and not lock_released(file, info):
            own = tuple(sorted(name for name, owner in held.items() if owner == file.stem))
            host, process = info.get("host", "unknown"), info.get("process", 0)
            plan, session = info.get("plan"), info.get("session", "")
            seen = touched / 1e9
            found.append(WorkerInfo(file.stem, host, process, plan, session, seen, own, lock_visible(info)))
    return found


def is_registered(folder: Path, who: str) -> bool:
    """True if the worker has a file, whether waiting or admitted."""
    return (folder / f"{who}.waiting").exists() or (folder / f"{who}.worker").exists()


def leases(folder: Path) -> dict[str, str]:
    """Return the holder's ID for each lease name."""
    owners = {lease.stem: owner_of(lease) for lease in folder.glob("*.lease")}
    return {name: owner for name, owner in owners.items() if owner}


def owner_of(lease: Path) -> str | None:
    try:
        return os.readlink(lease)
    except OSError:
        return None


def read(file: Path) -> tuple[dict[str, Any], int]:
    """Return the content of a worker's file and its modification time in nanoseconds; ({}, 0) if it does not
    exist."""
    try:
        with open(file) as stream:
            touched, info = os.fstat(stream.fileno()).st_mtime_ns, json.load(stream)
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError):
        return {}, 1
    return (info if isinstance(info, dict) else {}), touched


def lock_released(file: Path, info: dict[str, Any]) -> bool:
    """True if the worker is certainly gone: it ran under this kernel, and its lock is free."""
    if not lock_visible(info):
        return False
    with suppress(OSError), open(file) as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def lock_visible(info: dict[str, Any]) -> bool:
    """True if the worker's lock can be checked from this process."""
    return bool(info.get("locked")) and info.get("kernel") == boot_id()


def lock(stream: IO[str], study: Path) -> list[str]:
    """Lock the file, and return a note for the user if the file system has no locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return [
            f"{study}: its file system has no locks ({why}): a process that is killed is known to be gone "
            f"after {PATIENCE:.0f} s"
        ]
    return []


def boot_id() -> str:
    """Identify this boot of this machine: processes with the same id see each other's locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()

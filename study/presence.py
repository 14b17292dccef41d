"""Who works on a study, as its folder tells: any number of processes with the same plan, each with some of
the work on lease.

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BEAT, PATIENCE = 5.0, 60.0  # seconds
DOOR, REPORT = "door", "report"  # the leases that are no shards: of who joins, and of who reports


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

    @property
    def shards(self) -> list[str]:
        """Of its leases."""
        return [name for name in self.has if name not in (DOOR, REPORT)]


def at_work(study: Path) -> list[Known]:
    """Who works on a study, as far as can be seen at once: one on another machine that was killed is among
    them until somebody's patience ends."""
    held = leases(study / ".workers")
    found = []
    for file in sorted((study / ".workers").glob("*.worker")):
        about, touched = read(file)
        if about and not ended(file, about):
            has = tuple(sorted(name for name, owner in held.items() if owner == file.stem))
            host, process = about.get("host", "unknown"), about.get("process", 0)
            plan, session = about.get("plan"), about.get("session", "")
            found.append(Known(file.stem, host, process, plan, session, touched / 1e9, has))
    return found


def there(folder: Path, who: str) -> bool:
    """Whether it has a file, be it let in meanwhile."""
    return (folder / f"{who}.waiting").exists() or (folder / f"{who}.worker").exists()


def leases(folder: Path) -> dict[str, str]:
    """Name to the ID of who has it."""
    owners = {lease.stem: owner_of(lease) for lease in folder.glob("*.lease")}
    return {name: owner for name, owner in owners.items() if owner}


def owner_of(lease: Path) -> str | None:
    try:
        return os.readlink(lease)
    except OSError:
        return None


def read(file: Path) -> tuple[dict[str, Any], int]:
    """What a worker's file says, nothing where it is not there, and when it was touched, in nanoseconds."""
    try:
        with open(file) as stream:
            touched, about = os.fstat(stream.fileno()).st_mtime_ns, json.load(stream)
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError):
        return {}, 1
    return (about if isinstance(about, dict) else {}), touched


def ended(file: Path, about: dict[str, Any]) -> bool:
    """Whether it is known to be gone: of this kernel, and its lock free."""
    if not locks_here(about):
        return False
    with suppress(OSError), open(file) as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def locks_here(about: dict[str, Any]) -> bool:
    """Whether its lock can be seen."""
    return bool(about.get("locked")) and about.get("kernel") == kernel()


def lock(stream: IO[str], study: Path) -> list[str]:
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


def kernel() -> str:
    """Of this start of this machine: one process may see another's lock."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()

"""One process at a time works on a study."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from fovea.study.config.errors import Refused
from fovea.study.files import unwritable

TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextmanager
def held(folder: Path) -> Iterator[list[str]]:
    """By the system's lock, which it gives back however a process ends; where the file system has none, by a
    file of its owner's, which is then what it gives to be told."""
    lock = folder / ".lock"
    if lock.is_dir():
        raise Refused(
            f"{lock} is a folder, where a file must be: delete it, or give this run another name=..."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(lock, "a+")  # noqa: SIM115
    except OSError as error:
        raise unwritable(lock, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                stream.seek(0)
                raise _taken(folder, stream.read().strip() or "unknown") from None
            with _owned(folder):
                why = (error.strerror or str(error)).lower()
                yield [f"{folder}: its file system has no locks ({why}); {folder / '.owner'} stands for one"]
            return
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield []


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """A file that only one can create. One left by a process of this machine that has ended counts for
    nothing."""
    file, own = folder / ".owner", {"host": socket.gethostname(), "process": os.getpid(), "since": _since()}
    if _left(file):
        with suppress(FileNotFoundError):
            file.unlink()
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        other = _read(file)
        name = f"process {other.get('process', 'unknown')} on {other.get('host', 'unknown')}"
        raise _taken(folder, name, f"; if it has ended, delete {file}") from None
    try:
        with os.fdopen(handle, "w") as stream:
            json.dump(own, stream)
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def _left(file: Path) -> bool:
    other = _read(file)
    if other.get("host") != socket.gethostname():
        return False
    return _since(other.get("process", -1)) != other.get("since")


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _since(process: int | None = None) -> float | None:
    """When it began; None if it is none."""
    try:
        return psutil.Process(process).create_time()
    except (psutil.Error, ValueError, TypeError):
        return None


def _taken(folder: Path, other: str, more: str = "") -> Refused:
    return Refused(
        f"{folder}: another process ({other}) works on this study; wait for it, or give this run another "
        f"name=...{more}"
    )

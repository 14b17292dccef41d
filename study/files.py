"""Write files atomically, and report clearly when a file cannot be written."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

UNFINISHED = ".{}.unfinished"  # name of a file until it is complete
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class Unwritable(OSError):
    """The results cannot be written, for example because the disk is full or read-only."""


def unwritable(path: Path, error: OSError) -> Unwritable:
    why = (error.strerror or str(error)).lower()
    return Unwritable(
        f"{path} cannot be written: {why}; what is finished is kept: see to it, repeat the command"
    )


def write(path: Path, data: str | bytes, unfinished: str | None = None) -> None:
    """Write data to path atomically. unfinished: name of the temporary file; a unique one by default."""
    part = path.with_name(unfinished or UNFINISHED.format(f"{path.name}.{token_hex(4)}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            flush(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise unwritable(path, error) from error


def remove(path: Path, *endings: str) -> None:
    """Delete the files that differ from path only in one of these endings, left by an earlier report."""
    for ending in endings:
        path.with_suffix(ending).unlink(missing_ok=True)


def hash_of(path: Path) -> str:
    """Return the sha256 of the file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flush(handle: int) -> None:
    """Call fsync, and ignore it where unsupported, as on some network and user-space file systems."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FULL | {errno.EIO}:
            raise


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk, which makes the renames in it durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the record, or None if the file is missing, incomplete or not a JSON object."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def storable(text: str, most: int) -> str:
    """Return text that can be stored and shown: characters that UTF-8 cannot encode and control characters
    are escaped, and the middle is cut out if the text is longer than `most` characters."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)

"""Files that are there whole or not at all, and what is said where none can be written."""

import errno
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

UNFINISHED = ".{}.unfinished"  # of a file, until it is whole
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class Unwritable(OSError):
    """The results cannot be written: the disk is full, or may not be written to."""


def unwritable(path: Path, error: OSError) -> Unwritable:
    why = (error.strerror or str(error)).lower()
    return Unwritable(
        f"{path} cannot be written: {why}; what is finished is kept: see to it, repeat the command"
    )


def write(path: Path, data: str | bytes, unfinished: str | None = None) -> None:
    """Puts data at path in one stroke. unfinished: name of the file until then, else one of its own."""
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
    """What an earlier report left and this one has not. path: whatever it ends in."""
    for ending in endings:
        path.with_suffix(ending).unlink(missing_ok=True)


def flush(handle: int) -> None:
    """fsync, where the file system knows it: some over a network or in user space do not."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FULL | {errno.EIO}:
            raise


def flush_folder(folder: Path) -> None:
    """Renames are on the disk once their folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record, or None where there is none or it is not whole."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def storable(text: str, most: int) -> str:
    """As it can be stored and shown: what UTF-8 cannot hold and what steers a terminal is spelt out, the
    middle of what is too long left out. most: characters."""
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)

"""Records on disk: append-only, safe against a kill at any moment.

    results/NAME/
      runs/TIME.json                    one per start: command, provenance
      cells/ID/cell.json                what the cell is; FLOPs and warm-up once they are known
      cells/ID/samples/KEY.png + .json  one image; it exists if and only if its .json does, written last
      cells/ID/failures.jsonl           what went wrong, one JSON object per line

Every file is written beside its place, flushed to the disk and renamed into it, so it is there whole or not
at all."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fovea.study.config.errors import Refused


def write(path: Path, data: str | bytes) -> None:
    """Puts data at path in one stroke."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(part, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record, or None where there is none or it is not whole."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class Store:
    """One study's folder. Keys and cell ids are hashes; nothing that a user wrote becomes a file name."""

    def __init__(self, folder: Path):
        self.folder = folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process works on the study; the system gives it back however that process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                other = file.read().strip() or "unknown"
                raise Refused(
                    f"{self.folder}: another process ({other}) works on this study; "
                    f"wait for it, or give this run another name=..."
                ) from None
            for unfinished in self.folder.rglob(".*.part"):  # of a process that was killed while it wrote
                unfinished.unlink()
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            yield

    def cell(self, cell: str) -> Path:
        return self.folder / "cells" / cell

    def image(self, cell: str, key: str) -> Path:
        return self.cell(cell) / "samples" / f"{key}.png"

    def samples(self, cell: str) -> dict[str, dict[str, Any]]:
        """The finished samples of a cell by key."""
        files = sorted((self.cell(cell) / "samples").glob("*.json"))
        records = {file.stem: read_json(file) for file in files if not file.name.startswith(".")}
        return {key: r for key, r in records.items() if r is not None and self.image(cell, key).is_file()}

    def add(self, cell: str, finished: Mapping[str, tuple[bytes, dict[str, Any]]]) -> None:
        """A batch of samples, key to (PNG, record): all images first, then the records that make them
        count."""
        for key, (png, _) in finished.items():
            write(self.image(cell, key), png)
        for key, (_, record) in finished.items():
            write_json(self.image(cell, key).with_suffix(".json"), record)
        _flush(self.cell(cell) / "samples")

    def describe(self, cell: str, record: Mapping[str, Any]) -> None:
        """Adds to what is known of a cell."""
        write_json(self.cell(cell) / "cell.json", self.described(cell) | dict(record))

    def described(self, cell: str) -> dict[str, Any]:
        return read_json(self.cell(cell) / "cell.json") or {}

    def fail(self, cell: str, failure: Mapping[str, Any]) -> None:
        self.cell(cell).mkdir(parents=True, exist_ok=True)
        with open(self.cell(cell) / "failures.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(failure, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def failures(self, cell: str) -> list[dict[str, Any]]:
        found = []
        with suppress(OSError):
            for line in (self.cell(cell) / "failures.jsonl").read_text("utf-8").splitlines():
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found


def _flush(folder: Path) -> None:
    """Renames are on the disk once their folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

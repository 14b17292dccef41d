"""A study's folder: append-only records, safe against a kill at any moment.

    results/NAME/
      runs/SESSION.json             one per start: command, provenance (StudyRecord)
      cells/ID/cell.json            the cell's definition (CellRecord)
      cells/ID/records/             its batches and their images, failures, the rest: study/record_files.py
      cells/ID/images/KE/KEY.png    one image; it counts only if its sha256 matches its record
      cells/ID/focus/BA/BATCH.npz   key to (steps, rows, columns): share of the model that each token used, in
                                    255ths; only for batches in which some token used less than all
      cells/ID/traces/              study/run/trace.py
      cells/ID/found/               what metrics computed from the images: study/analysis/cache.py

Every other file is written under a temporary name, flushed to disk and renamed, so it is complete or absent.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from fovea.study import record_files
from fovea.study.config.errors import Refused
from fovea.study.files import UNFINISHED, flush_folder, read_json, write, write_json
from fovea.study.records import VERSION, BatchRecord, CellRecord, Finished, Record
from fovea.study.workers import Worker, joined

TIME = "%Y%m%dT%H%M%S%f"
PLACES = ("", ".workers/", "runs/", "cells/*/", "cells/*/traces/", "cells/*/focus/*/", "cells/*/found/*/")
IMAGES = 300_000  # images whose records are cached, at most, beside those of the last cell


class Store:
    """One study's folder. Keys and cell ids are hashes; no user text becomes a file name. It pickles as its
    path alone: in another process it is a new session that writes files of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._finished: dict[str, Finished] = {}
        self._parsed: dict[str, record_files.ParsedRecords] = {}  # may include cells not in _finished
        self._broken: dict[str, int] = {}  # invalid lines per cell
        self._damaged: dict[str, dict[str, int]] = {}  # per cell: key to modification time

    def __reduce__(self) -> Any:
        return Store, (self.folder,)

    @cached_property
    def session(self) -> str:
        """Name of this process's session. It sorts after all earlier ones, even if the clock was set back."""
        now = datetime.now(UTC).replace(tzinfo=None)
        for file in (self.folder / "runs").glob("*.json"):
            with suppress(ValueError):
                now = max(now, datetime.strptime(file.stem[:21], TIME) + timedelta(microseconds=1))
        return f"{now.strftime(TIME)}-{token_hex(2)}"

    @contextmanager
    def at_work(self, plan: str | None = None) -> Iterator[Worker]:
        """Work on the study with this process: alone, or with others whose plan has the same digest."""
        self.check()
        with joined(self.folder, plan, self._clear, self.session) as worker:
            yield worker

    def _clear(self) -> None:
        """Delete the temporary files of killed processes, except those of images, which a repeated run
        overwrites."""
        for place in PLACES:
            for unfinished in self.folder.glob(place + UNFINISHED.format("*")):
                if unfinished.is_file():
                    unfinished.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise Refused if the folder cannot hold a study or its records have another version."""
        for place in (self.folder, *self.folder.parents):
            if place.is_dir():
                break
            if place.exists() or place.is_symlink():
                what = "a link to nothing" if place.is_symlink() else "a file"
                raise Refused(
                    f"{self.folder}: {place} is {what}, where a folder must be; another results=..."
                )
        for cell in self.folder.glob("cells/*"):
            first = any((cell / "samples").glob("*.json"))  # a file per image, without a version
            version = 0 if first else (read_json(cell / "cell.json") or {}).get("version", VERSION)
            if version != VERSION:
                made = "an older" if version < VERSION else "a newer"
                raise Refused(
                    f"{self.folder}: its records are of {made} version of Fovea ({version}; this one reads "
                    f"{VERSION}): give this run another name=..., or go on with the version that made it; "
                    f"show={self.folder} shows its table"
                )

    def cell(self, cell: str) -> Path:
        return self.folder / "cells" / cell

    def image(self, cell: str, key: str) -> Path:
        return self.cell(cell) / _image_file(key)

    def holds_images(self) -> bool:
        """True if any image is on disk, whether or not it counts."""
        return any(self.folder.glob(f"cells/*/{_image_file('*')}"))

    def finished(self, cell: str, key: str) -> Path | None:
        """Return an image's file if the image counts."""
        return self.image(cell, key) if key in self.samples(cell) else None

    def samples(self, cell: str) -> Finished:
        """Return a cell's finished samples by key: the record is valid, and the image exists and is not known
        to be damaged (`verify`)."""
        if cell not in self._finished:
            found = self.records(cell)
            present = self._image_keys(cell)
            found = found.only([key for key in found if key in present])
            while self._finished and len(found) + sum(map(len, self._finished.values())) > IMAGES:
                self.forget(next(iter(self._finished)))
            self._finished[cell] = found
        return self._finished[cell]

    def lacking(self, cells: Iterable[str], keys: Iterable[str]) -> dict[str, set[str]]:
        """Return which of these samples each cell lacks; cells that lack none are left out."""
        wanted = set(keys)
        lacking = {cell: wanted - self.samples(cell).keys() for cell in cells}
        return {cell: missing for cell, missing in lacking.items() if missing}

    def count_lacking(self, cells: Collection[str], keys: Iterable[str]) -> dict[str, int]:
        """Return how many of these images each cell lacks, after what other processes have made by now."""
        self.refresh(cells)
        lacking = self.lacking(cells, keys)
        return {cell: len(lacking.get(cell, ())) for cell in cells}

    def records(self, cell: str) -> Finished:
        """Return everything recorded of a cell, whether or not the images exist."""
        records = self._parsed[cell] = record_files.read(self.cell(cell), cell, self._parsed.get(cell))
        self._broken[cell] = records.broken
        return Finished.of(records.batches, records.others)

    def forget(self, cell: str) -> None:
        """Drop the cached records of a cell."""
        self._finished.pop(cell, None)
        self._parsed.pop(cell, None)

    def _image_keys(self, cell: str) -> set[str]:
        """Return the keys of the images on disk that are not known to be damaged."""
        found: set[str] = set()
        for shard in (self.cell(cell) / "images").glob("[!.]*/"):
            found.update(name[:-4] for name in os.listdir(shard) if name.endswith(".png"))
        return found - self._damaged.get(cell, {}).keys()

    def verify(self, cells: Iterable[str]) -> list[Path]:
        """Return the images that differ from their records; they count as missing from now on. Only files
        changed since they were recorded are read again."""
        found = []
        for cell in cells:
            records, place = self.samples(cell), str(self.cell(cell))
            facts = zip(records, *map(records.column, ("bytes", "modified", "sha256")), strict=True)
            for key, size, modified, digest in facts:
                file = f"{place}/{_image_file(key)}"  # making a Path takes longer than looking at the file
                if not _matches(file, size, modified, digest):
                    found.append(Path(file))
        for file in found:
            self.distrust(file)
        return found

    def broken(self, cells: Iterable[str]) -> dict[Path, int]:
        """Return the number of invalid lines (torn, changed or another cell's) per records folder, for cells
        already read."""
        counts = {self.cell(cell) / "records": self._broken.get(cell, 0) for cell in cells}
        return {folder: count for folder, count in counts.items() if count}

    def distrust(self, file: Path) -> None:
        """Count an image that could not be read as missing."""
        cell = file.parents[2].name
        self._damaged.setdefault(cell, {})[file.stem] = _modified(file)
        self.forget(cell)

    def refresh(self, cells: Iterable[str]) -> None:
        """Include what other processes have made since, damaged images that were replaced among it."""
        for cell in cells:
            self._finished.pop(cell, None)
            damaged = self._damaged.get(cell, {})
            if repaired := [key for key, at in damaged.items() if _modified(self.image(cell, key)) != at]:
                for key in repaired:
                    del damaged[key]
                self.verify([cell])

    def write_images(self, cell: str, pngs: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Write images to disk, and return by key the file fields of `ImageRecord`."""
        found = {}
        for key, png in pngs.items():
            file = self.image(cell, key)
            # a name that a repeated run reuses, so that a kill leaves no temporary file behind
            write(file, png, UNFINISHED.format(file.name))
            found[key] = {
                "sha256": hashlib.sha256(png).hexdigest(),
                "bytes": len(png),
                "modified": file.stat().st_mtime_ns,
            }
        for shard in {self.image(cell, key).parent for key in pngs}:
            flush_folder(shard)
        return found

    def write_focus(self, cell: str, batch: str, focus: Mapping[str, np.ndarray]) -> None:
        """Store shares from 0 to 1, (steps, rows, columns), by key."""
        stream = io.BytesIO()
        levels: dict[str, Any] = {key: (had * 255).round().astype(np.uint8) for key, had in focus.items()}
        np.savez_compressed(stream, **levels)
        write(self._focus(cell, batch), stream.getvalue())

    def _focus(self, cell: str, batch: str) -> Path:
        return self.cell(cell) / "focus" / batch[:2] / f"{batch}.npz"

    def focus(self, cell: str, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the shares from 0 to 1, (steps, rows, columns), by key; images in which every token used the
        whole model are omitted."""
        finished = self.samples(cell).only(keys)
        files = {
            key: self._focus(cell, batch)
            for key, batch in zip(finished, finished.of_batch("id").tolist(), strict=True)
        }
        found = {}
        for key, file in files.items():
            with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(file) as stored:
                found[key] = stored[key].astype(np.float64) / 255
        return found

    def append(self, record: Record) -> None:
        """Append a record. A batch's images count from now on; they must be on disk already."""
        cell: str = record.cell  # type: ignore[attr-defined]
        record_files.append(self.cell(cell) / "records" / f"{self.session}.jsonl", record)
        if isinstance(record, BatchRecord) and cell in self._damaged:
            for image in record.images:
                self._damaged[cell].pop(image.key, None)
        self._finished.pop(cell, None)

    def describe(self, record: CellRecord) -> None:
        """Write a cell's definition unless it is stored already."""
        if read_json(self.cell(record.id) / "cell.json") != record.model_dump(mode="json"):
            write_json(self.cell(record.id) / "cell.json", record.model_dump(mode="json"))

    def index(self, cells: Iterable[str]) -> None:
        """Convert long records to columns, which open faster."""
        for cell in cells:
            record_files.index(self.cell(cell), cell)


def _modified(file: Path) -> int:
    """Return the modification time in nanoseconds; 0 if the file does not exist."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _image_file(key: str) -> str:
    """Return the place of an image within its cell's folder."""
    return f"images/{key[:2]}/{key}.png"


def _matches(file: str, size: int, modified: int, digest: str) -> bool:
    """True if the file has the recorded size and content."""
    try:
        now = os.stat(file)
        if now.st_size != size:
            return False
        if now.st_mtime_ns == modified:
            return True
        if hashlib.sha256(Path(file).read_bytes()).hexdigest() != digest:
            return False
    except OSError:
        return False
    with suppress(OSError):  # a copy with another time: skip hashing it next time
        os.utime(file, ns=(int(modified), int(modified)))
    return True

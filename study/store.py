"""A study's folder: records that are only ever appended, safe against a kill at any moment.

    results/NAME/
      runs/SESSION.json             one per start: command, provenance (StudyRecord)
      cells/ID/cell.json            what the cell is (CellRecord)
      cells/ID/records/             its batches with their images, failures and the rest: study/segments.py
      cells/ID/images/KE/KEY.png    one image; it counts if it is the one that its record holds the sha256 of
      cells/ID/focus/BA/BATCH.npz   key to (steps, rows, columns): how much of the model each token had, in
                                    255ths; of batches in which not every token had all
      cells/ID/traces/              study/run/trace.py
      cells/ID/found/               what metrics found in the images: study/analysis/cache.py

Every file but the appended ones is written beside its place, flushed to the disk and renamed into it, so it
is there whole or not at all."""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from fovea.study import segments
from fovea.study.config.errors import Refused
from fovea.study.files import UNFINISHED, flush_folder, read_json, write, write_json
from fovea.study.records import VERSION, BatchRecord, CellRecord, Finished, Record
from fovea.study.workers import Worker, joined

TIME = "%Y%m%dT%H%M%S%f"
PLACES = ("", ".workers/", "runs/", "cells/*/", "cells/*/traces/", "cells/*/focus/*/", "cells/*/found/*/")
IMAGES = 300_000  # whose records are kept at hand, at most, beside those of the last cell


class Store:
    """One study's folder. Keys and cell ids are hashes; nothing that a user wrote becomes a file name. It
    pickles as its folder alone: in another process it is another session, with files of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known: dict[str, Finished] = {}
        self._noted: dict[str, segments.Noted] = {}  # of the same cells, and of those to be read further
        self._broken: dict[str, int] = {}  # lines of those that were read
        self._damaged: dict[str, dict[str, int]] = {}  # of cells: key to when the file was last changed

    def __reduce__(self) -> Any:
        return Store, (self.folder,)

    @cached_property
    def session(self) -> str:
        """Of this process: a name that sorts behind all earlier ones, also where the clock was set back."""
        now = datetime.now(UTC).replace(tzinfo=None)
        for file in (self.folder / "runs").glob("*.json"):
            with suppress(ValueError):
                now = max(now, datetime.strptime(file.stem[:21], TIME) + timedelta(microseconds=1))
        return f"{now.strftime(TIME)}-{token_hex(2)}"

    @contextmanager
    def at_work(self, plan: str | None = None) -> Iterator[Worker]:
        """This process at work on the study: alone, or with others that make the same plan, by its digest."""
        self.check()
        with joined(self.folder, plan, self._clear, self.session) as worker:
            yield worker

    def _clear(self) -> None:
        """What a kill has left, but for images: they are made again under their names."""
        for place in PLACES:
            for unfinished in self.folder.glob(place + UNFINISHED.format("*")):
                if unfinished.is_file():
                    unfinished.unlink(missing_ok=True)

    def check(self) -> None:
        """Refused where a study cannot be, or where it is of another version."""
        for place in (self.folder, *self.folder.parents):
            if place.is_dir():
                break
            if place.exists() or place.is_symlink():
                what = "a link to nothing" if place.is_symlink() else "a file"
                raise Refused(
                    f"{self.folder}: {place} is {what}, where a folder must be; another results=..."
                )
        for cell in self.folder.glob("cells/*"):
            version = _version(cell)
            if version is not None and version != VERSION:
                made = "an older" if version < VERSION else "a newer"
                raise Refused(
                    f"{self.folder}: its records are of {made} version of Fovea ({version}; this one reads "
                    f"{VERSION}): give this run another name=..., or go on with the version that made it; "
                    f"show={self.folder} shows its table"
                )

    def cell(self, cell: str) -> Path:
        return self.folder / "cells" / cell

    def image(self, cell: str, key: str) -> Path:
        return self.cell(cell) / "images" / key[:2] / f"{key}.png"

    def finished(self, cell: str, key: str) -> Path | None:
        """The file of an image, if it counts."""
        return self.image(cell, key) if key in self.samples(cell) else None

    def samples(self, cell: str) -> Finished:
        """The finished samples of a cell by key: those whose record is whole and whose image is there and not
        known to be damaged (`verify`)."""
        if cell not in self._known:
            found = self.records(cell)
            there = self._files(cell)
            found = found.only([key for key in found if key in there])
            rows = len(found)
            while self._known and rows + sum(map(len, self._known.values())) > IMAGES:
                self.forget(next(iter(self._known)))
            self._known[cell] = found
        return self._known[cell]

    def records(self, cell: str) -> Finished:
        """All that was recorded, whether or not the images are there."""
        self._noted[cell] = segments.read(self.cell(cell), cell, self._noted.get(cell))
        self._broken[cell] = self._noted[cell].broken
        noted = self._noted[cell]
        return Finished.of(noted.batches, noted.others)

    def forget(self, cell: str) -> None:
        """What was read of a cell whose files were changed."""
        self._known.pop(cell, None)
        self._noted.pop(cell, None)

    def _files(self, cell: str) -> set[str]:
        """The images that are there, by key."""
        found: set[str] = set()
        for shard in (self.cell(cell) / "images").glob("[!.]*/"):
            found.update(name[:-4] for name in os.listdir(shard) if name.endswith(".png"))
        return found - self._damaged.get(cell, {}).keys()

    def verify(self, cells: Iterable[str]) -> list[Path]:
        """Images that are there and are not what was recorded of them: they count as missing from now on.
        Only a file that was changed since is read again."""
        found = []
        for cell in cells:
            noted = self.samples(cell)
            facts = zip(noted, *map(noted.column, ("bytes", "modified", "sha256")), strict=True)
            for key, size, modified, digest in facts:
                if not _same(self.image(cell, key), size, modified, digest):
                    found.append(self.image(cell, key))
        for file in found:
            self.distrust(file)
        return found

    def broken(self, cells: Iterable[str]) -> dict[Path, int]:
        """Lines of records that are none, by folder, of the cells that were read: torn, changed or another
        cell's."""
        counts = {self.cell(cell) / "records": self._broken.get(cell, 0) for cell in cells}
        return {folder: count for folder, count in counts.items() if count}

    def distrust(self, file: Path) -> None:
        """An image that could not be read counts as missing."""
        cell = file.parents[2].name
        self._damaged.setdefault(cell, {})[file.stem] = _modified(file)
        self.forget(cell)

    def refresh(self, cells: Iterable[str]) -> None:
        """What other processes have made since counts, too: also of the images that were damaged."""
        for cell in cells:
            self._known.pop(cell, None)
            damaged = self._damaged.get(cell, {})
            if mended := [key for key, at in damaged.items() if _modified(self.image(cell, key)) != at]:
                for key in mended:
                    del damaged[key]
                self.verify([cell])

    def write_images(self, cell: str, pngs: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Puts them on the disk. Gives what `ImageRecord` holds of each file, by key."""
        found = {}
        for key, png in pngs.items():
            file = self.image(cell, key)
            write(file, png, UNFINISHED.format(file.name))  # the same after a kill, so that none is left
            found[key] = {
                "sha256": hashlib.sha256(png).hexdigest(),
                "bytes": len(png),
                "modified": file.stat().st_mtime_ns,
            }
        for shard in {self.image(cell, key).parent for key in pngs}:
            flush_folder(shard)
        return found

    def write_focus(self, cell: str, batch: str, focus: Mapping[str, np.ndarray]) -> None:
        """Key to shares from 0 to 1, (steps, rows, columns)."""
        stream = io.BytesIO()
        levels: dict[str, Any] = {key: (had * 255).round().astype(np.uint8) for key, had in focus.items()}
        np.savez_compressed(stream, **levels)
        write(self._focus(cell, batch), stream.getvalue())

    def _focus(self, cell: str, batch: str) -> Path:
        return self.cell(cell) / "focus" / batch[:2] / f"{batch}.npz"

    def focus(self, cell: str, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Of these images: shares from 0 to 1, (steps, rows, columns). Without those whose every token had
        all."""
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
        """A batch counts with its images from now on: those are on the disk already."""
        cell: str = record.cell  # type: ignore[attr-defined]
        segments.append(self.cell(cell) / "records" / f"{self.session}.jsonl", record)
        if isinstance(record, BatchRecord) and cell in self._damaged:
            for image in record.images:
                self._damaged[cell].pop(image.key, None)
        self._known.pop(cell, None)

    def describe(self, record: CellRecord) -> None:
        """What a cell is; written again where that is lost or another's."""
        if read_json(self.cell(record.id) / "cell.json") != record.model_dump(mode="json"):
            write_json(self.cell(record.id) / "cell.json", record.model_dump(mode="json"))

    def index(self, cells: Iterable[str]) -> None:
        """Long records are put in columns, so that they open fast."""
        for cell in cells:
            segments.index(self.cell(cell), cell)


def _modified(file: Path) -> int:
    """In nanoseconds; 0 where there is none."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _same(file: Path, size: int, modified: int, digest: str) -> bool:
    try:
        now = file.stat()
        if now.st_size != size:
            return False
        if now.st_mtime_ns == modified:
            return True
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            return False
    except OSError:
        return False
    with suppress(OSError):  # a copy: known from now on
        os.utime(file, ns=(int(modified), int(modified)))
    return True


def _version(cell: Path) -> int | None:
    """Of its records; None where there are none, or only what says nothing."""
    if any((cell / "samples").glob("*.json")):
        return 0
    version = (read_json(cell / "cell.json") or {}).get("version")
    return version if isinstance(version, int) else None

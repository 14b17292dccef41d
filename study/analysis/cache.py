"""Disk cache of per-image metric values and features, stored beside the images.

    cells/ID/found/WHAT/PART.safetensors    rows of some images; WHAT: hash of the quantity, code and weights

Files are written atomically. Rows are keyed by the sha256 of the image, so a regenerated image never gets the
values of its predecessor. Unreadable files are ignored. Deleting `found` only costs the time to recompute it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fovea.eval.rows import Rows
from fovea.eval.samples import PerImage, computed_by, signature
from fovea.study.files import write
from fovea.study.picture import Damaged, pixels
from fovea.study.records import Finished
from fovea.study.store import Store

PART = 1024  # rows per file


class CachedRows(Rows):
    """Rows backed by a folder of memory-mapped files, of which only the rows in use are read."""

    def __init__(self, folder: Path, what: str):
        super().__init__()
        self.folder, self.what = folder, what
        self._new: list[str] = []  # ids of rows not yet written
        self._mapped = 0  # number of parts that are mapped from files
        for file in sorted(folder.glob("[!.]*.safetensors")):
            with suppress(Exception):  # truncated or foreign file: its rows are computed again
                self._map(file)

    def _map(self, file: Path) -> None:
        found = load_file(file)
        super().add([bytes(row).hex() for row in found.pop("ids").numpy()], found)
        self._mapped = len(self._parts)

    def add(self, ids: Sequence[str], found: Mapping[str, Tensor]) -> None:
        super().add(ids, {name: x.clone() for name, x in found.items()})
        self._new += ids
        if len(self._new) >= PART:
            self.keep()

    def keep(self) -> None:
        """Write the new rows to a file and map that file instead of holding them in memory."""
        if not self._new:
            return
        rows = {name: column.tensor() for name, column in self.take(self._new).items()}
        rows["ids"] = torch.from_numpy(np.array([list(bytes.fromhex(name)) for name in self._new], np.uint8))
        file = self.folder / f"{hashlib.sha256(''.join(self._new).encode()).hexdigest()[:16]}.safetensors"
        write(file, save(rows, {"what": self.what}))
        self._new = []
        del self._parts[self._mapped :]
        self._map(file)


class StoredImages:
    """Some images of a cell, read from the store on demand; implements `eval.samples.Images`."""

    def __init__(
        self, store: Store, cell: str, records: Finished, known: "dict[str, CachedRows] | None" = None
    ):
        self.store, self.cell, self.records = store, cell, records
        self.known = {} if known is None else known
        self.keys, self.ids = list(records), records.column("sha256").tolist()

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @cached_property
    def _size(self) -> tuple[int, int]:
        height, width = pixels(self.store.image(self.cell, self.keys[0])).shape[:2]
        return height, width

    def rows(self, what: PerImage) -> CachedRows:
        text = cache_key(what)
        if text not in self.known:
            name = hashlib.sha256(text.encode()).hexdigest()[:16]
            self.known[text] = CachedRows(self.store.cell(self.cell) / "found" / name, text)
        return self.known[text]

    def keep(self) -> None:
        for rows in self.known.values():
            rows.keep()

    def read(self, places: Sequence[int]) -> Tensor:
        """Decode images to uint8, (b, 3, H, W). Raises Damaged on an unreadable or differently sized file."""
        files = [self.store.image(self.cell, self.keys[i]) for i in places]
        images = np.empty((len(files), 3, *self.size), np.uint8)

        def decode(i: int) -> None:
            image = pixels(files[i])
            if image.shape[:2] != self.size:
                raise Damaged(files[i], ValueError("it is not of the size of the others"))
            images[i] = image.transpose(2, 0, 1)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(decode, range(len(files))))  # re-raises exceptions of the workers
        return torch.from_numpy(images)

    def part(self, places: Sequence[int]) -> "StoredImages":
        records = self.records.only(self.keys[i] for i in places)
        return StoredImages(self.store, self.cell, records, self.known)


def cache_key(what: PerImage) -> str:
    """Return as text what a cached value depends on: the quantity, its code, torch and the device type."""
    return json.dumps({"what": signature(what), **_computed_by(what.module)}, sort_keys=True)


_computed_by = cache(computed_by)  # torch's version takes milliseconds to look up

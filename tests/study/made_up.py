"""Records of no study, and their images."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fovea.study.picture import png
from fovea.study.records import BatchRecord, ImageRecord
from fovea.study.store import Store


def image(seed: int = 0) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8), False)


def add(
    store: Store,
    cell: str,
    pngs: dict[str, bytes],
    batch: str = "b" * 12,
    seconds: float = 1.0,
    tokens: float = 24.0,
    **other: Any,
) -> BatchRecord:
    """A batch as a run stores it."""
    files = store.write_images(cell, pngs)
    of = {"prompt_id": "0", "prompt": "a fox", "seed": 0, "noise": "f" * 16, "tokens": tokens, "blocks": 6.0}
    images = tuple(ImageRecord(key=key, flops=10**12, **of, **file) for key, file in files.items())
    known: dict[str, Any] = {
        "cell": cell,
        "id": batch,
        "size": len(pngs) or 1,
        "session": store.session,
        "device": "a processor",
        "time": "2026-01-01T00:00:00+00:00",
        "seconds": seconds,
        "encode_seconds": 0.1,
        "decode_seconds": 0.2,
        "memory": 1,
        "memory_process": 1,
        "memory_since_start": False,
        "state": {"joules": None, "throttled": None},
        "random_weights": False,
        "images": images,
    }
    record = BatchRecord(**known | other)
    store.append(record)
    return record


def edit_records(folder: Path, change: Callable[[str, dict[str, Any]], Any], cell: str = "*") -> None:
    """Every line of a study's records, as if it had been written so. change: of a line's kind and record,
    which it edits in place; False drops the line."""
    for file in folder.glob(f"cells/{cell}/records/*.jsonl"):
        lines = []
        for text in file.read_bytes().splitlines():
            kind, record = next((k, r) for k, r in json.loads(text).items() if k != "check")
            if change(kind, record) is not False:
                body = json.dumps(record).encode()
                lines.append(b'{"check":"%08x","%s":%s}\n' % (zlib.crc32(body), kind.encode(), body))
        file.write_bytes(b"".join(lines))


def replace_image(folder: Path, cell: str, key: str, data: bytes) -> None:
    """Another image of a cell, as if it had been made so."""
    file = Store(folder).write_images(cell, {key: data})[key]

    def change(kind, record):
        for one in record.get("images", []) if kind == "batch" else []:
            if one["key"] == key:
                one.update(file)

    edit_records(folder, change, cell)

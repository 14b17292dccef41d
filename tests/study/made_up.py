"""Records of no study, and their images."""

import numpy as np

from fovea.study.picture import png
from fovea.study.records import BatchRecord, ImageRecord
from fovea.study.store import Store


def image(seed: int = 0) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8), False)


def add(
    store: Store, cell: str, pngs: dict[str, bytes], batch: str = "b" * 12, seconds: float = 1.0
) -> BatchRecord:
    """A batch as a run stores it."""
    files = store.write_images(cell, pngs)
    of = {"prompt_id": "0", "prompt": "a fox", "seed": 0, "noise": "f" * 16, "tokens": 24.0, "blocks": 6.0}
    images = tuple(ImageRecord(key=key, flops=10**12, **of, **file) for key, file in files.items())
    record = BatchRecord(
        cell=cell,
        id=batch,
        size=len(pngs) or 1,
        session=store.session,
        device="a processor",
        time="2026-01-01T00:00:00+00:00",
        seconds=seconds,
        encode_seconds=0.1,
        decode_seconds=0.2,
        memory=1,
        memory_process=1,
        memory_since_start=False,
        state={"joules": None, "throttled": None},
        random_weights=False,
        images=images,
    )
    store.append(record)
    return record

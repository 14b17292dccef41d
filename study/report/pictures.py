"""The images that a report holds: a few prompts, every cell, as data of the page."""

import base64
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from fovea.study.config.prompts import Sample
from fovea.study.plan.plan import Plan
from fovea.study.store import Store

PROMPTS, SIDE = 8, 512  # at most
PIXELS = 24_000_000  # in all: a report of many cells shows fewer prompts, and opens as fast
SMALL = 128  # up to here nothing is lost
QUALITY = 85


def shown(plan: Plan, store: Store) -> list[Sample]:
    """The first prompts that any cell has an image of."""
    there = (s for s in plan.samples if any(image(store, cell.id, s) for cell in plan.cells))
    few = list(islice(there, PROMPTS))
    if not few:
        return []
    width, height = _fitted(_size(plan, store, few[0]))
    return few[: max(1, PIXELS // (width * height * len(plan.cells)))]


def image(store: Store, cell: str, sample: Sample) -> Path | None:
    """Its file, if it is finished."""
    return store.image(cell, sample.key) if sample.key in store.samples(cell) else None


def pictures(plan: Plan, store: Store, samples: Sequence[Sample]) -> dict[str, list[str | None]]:
    """Cell id to one data URI per sample, None where the cell has no image of it."""
    found: dict[str, list[str | None]] = {}
    for cell in plan.cells:
        files = [image(store, cell.id, s) for s in samples]
        found[cell.id] = [webp(file) if file else None for file in files]
    return found


def webp(path: Path) -> str:
    with Image.open(path) as stored:
        small = stored.convert("RGB")
    small = small.resize(_fitted(small.size), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", lossless=max(small.size) <= SMALL, quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def scope(plan: Plan, store: Store, samples: Sequence[Sample]) -> dict[str, Any]:
    """Their size, and what a reader must know of what is left out."""
    if not samples:
        return {"width": 1, "height": 1, "note": "No image was made."}
    stored = _size(plan, store, samples[0])
    width, height = _fitted(stored)
    told = []
    if len(samples) < len(plan.samples):
        told.append(f"{len(samples)} of {len(plan.samples)} images per cell are in this file")
    if (width, height) != stored:
        told.append(f"at {width} × {height} of {stored[0]} × {stored[1]} pixels")
    if max(width, height) > SMALL:
        told.append(f"as WebP of quality {QUALITY}")
    tail = "; the stored images lie beside it in cells/*/images." if told else ""
    return {"width": width, "height": height, "note": ", ".join(told) + tail}


def _size(plan: Plan, store: Store, sample: Sample) -> tuple[int, int]:
    file = next(file for cell in plan.cells if (file := image(store, cell.id, sample)))
    with Image.open(file) as stored:
        return stored.size


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1, SIDE / max(size))
    return round(size[0] * scale), round(size[1] * scale)

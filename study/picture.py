"""What is stored of an image: its PNG, and how much of the model each token had."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png(image: np.ndarray, random_weights: bool) -> bytes:
    note = PngInfo()
    if random_weights:
        note.add_text("Comment", "RANDOM WEIGHTS: for timing only")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", pnginfo=note)
    return stream.getvalue()


def pixels(path: Path, mode: str = "RGB") -> np.ndarray:
    """uint8 (h, w, 3), or (h, w) for mode "L"."""
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def same(a: Path, b: Path) -> bool:
    """To the last pixel, however they are packed."""
    if a.read_bytes() == b.read_bytes():
        return True
    x, y = pixels(a), pixels(b)
    return x.shape == y.shape and bool((x == y).all())


def packed(had: np.ndarray | None, grid: tuple[int, int]) -> dict[str, Any] | None:
    """(steps, n) shares from 0 to 1 as base64 of their compressed bytes."""
    if had is None:
        return None
    levels = zlib.compress((had * 255).round().astype(np.uint8).tobytes())
    return {
        "steps": len(had),
        "rows": grid[0],
        "columns": grid[1],
        "levels": base64.b64encode(levels).decode(),
    }


def unpacked(focus: dict[str, Any]) -> np.ndarray:
    """(steps, rows, columns) shares from 0 to 1."""
    shape = focus["steps"], focus["rows"], focus["columns"]
    levels = zlib.decompress(base64.b64decode(focus["levels"]))
    return np.frombuffer(levels, np.uint8).reshape(shape) / 255

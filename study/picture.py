"""What is stored of an image: its PNG, and which tokens ran, as bits."""

import base64
import io
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


def packed(ran: np.ndarray | None, grid: tuple[int, int]) -> dict[str, Any] | None:
    """(steps, n) booleans as base64 of their bits."""
    if ran is None:
        return None
    bits = base64.b64encode(np.packbits(ran).tobytes()).decode()
    return {"steps": len(ran), "rows": grid[0], "columns": grid[1], "bits": bits}


def unpacked(focus: dict[str, Any]) -> np.ndarray:
    """(steps, rows, columns) booleans."""
    shape = focus["steps"], focus["rows"], focus["columns"]
    bits = np.frombuffer(base64.b64decode(focus["bits"]), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)

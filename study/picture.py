"""Read and write images as PNG."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


class Damaged(Exception):
    """An image that cannot be read."""

    def __init__(self, path: Path, why: object):
        super().__init__(f"{path} cannot be read as an image: {why}")
        self.path = path


def png(image: np.ndarray, random_weights: bool) -> bytes:
    note = PngInfo()
    if random_weights:
        note.add_text("Comment", "RANDOM WEIGHTS: for timing only")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", pnginfo=note)
    return stream.getvalue()


def pixels(path: Path, mode: str = "RGB") -> np.ndarray:
    """Return the image as uint8 (h, w, 3), or (h, w) for mode "L". Raises Damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Damaged(path, error) from error


def size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image without decoding it. Raises Damaged."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Damaged(path, error) from error


def same(a: Path, b: Path) -> bool:
    """True if the pixels are identical, however the files are compressed."""
    if a.read_bytes() == b.read_bytes():
        return True
    x, y = pixels(a), pixels(b)
    return x.shape == y.shape and bool((x == y).all())

"""Features of image sets on disk: safetensors with one row per image, and their provenance in the header.

Features are stored, not only their mean and covariance, so that kernels, extrapolations and standard errors
can be computed too.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import Protocol, runtime_checkable

from fovea.eval import Unavailable
from fovea.eval.caches import unchanged
from fovea.eval.pictures import read, readable

ROWS = 1024  # rows in memory at once
AGAIN = "make it again with `python -m scripts.reference_stats`"


@runtime_checkable
class Features(Protocol):
    """Features (n, d), or a slice of them: a tensor, an array, or rows read from disk on conversion."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: Any, /) -> Any: ...


def blocks(features: Features, size: int = ROWS) -> Iterator[NDArray[np.float64]]:
    """Yield the rows in order, `size` at a time."""
    return (np.asarray(features[i : i + size], np.float64) for i in range(0, len(features), size))


@runtime_checkable
class Source(Protocol):
    """Computes features: an `fovea.eval.encoder.Encoder` or equivalent.

    identity: everything features depend on besides the images.
    pictures: n PIL images of any sizes -> {name: (n, d)}.
    """

    @property
    def identity(self) -> dict[str, Any]: ...
    def pictures(self, pictures: Iterable[Image.Image], /) -> dict[str, Tensor]: ...


class Known:
    """Features of a set by name, (m, d) each, and their provenance."""

    def __init__(self, features: dict[str, Tensor], made_from: dict[str, Any]):
        self.features, self.made_from = features, made_from


def computed(
    source: Source,
    files: Sequence[Path],
    cropped: Callable[[Image.Image], Image.Image] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Known:
    """Compute the features of image files, each passed through `cropped` if given.

    Raises Unavailable naming a file that is not an image.
    """
    sizes = set()

    def pictures() -> Iterator[Image.Image]:
        for picture in read(files):
            taken = cropped(picture) if cropped else picture
            sizes.add((taken.height, taken.width))
            yield taken

    features = source.pictures(pictures())
    made_from = {
        "count": len(files),
        "resolution": list(*sizes) if len(sizes) == 1 else None,  # None: several sizes
        "images": hashlib.sha256("".join(contents(files)).encode()).hexdigest(),
        "versions": {name: version(name) for name in ("torch", "pillow", "numpy")},
    }
    return Known(features, {**source.identity, **made_from, **(provenance or {})})


def contents(files: Sequence[Path]) -> list[str]:
    """Return the sorted hashes of the files, which are read again only if one of them has changed."""
    return _contents(tuple(unchanged(files)))


@lru_cache(maxsize=4)
def _contents(files: Sequence[tuple[str, int, int]]) -> list[str]:
    return sorted(hashlib.sha256(Path(name).read_bytes()).hexdigest() for name, _, _ in files)


def of_pictures(files: Sequence[Path], cache: Path | None, source: Source) -> Known:
    """Return the features of files, stored in `cache` under a hash that includes their contents."""
    if cache is None:
        return computed(source, files)
    key = json.dumps([source.identity, contents(files)], sort_keys=True)
    kept = cache.expanduser() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if kept.is_file():
        with suppress(Unavailable):  # damaged: computed and stored again
            return of_file(kept)
    found = computed(source, files)
    with suppress(OSError):  # without a writable folder they are recomputed each time
        save(found, kept)
    return found


def check(files: Sequence[Path], cache: Path | None) -> None:
    """Raise Unavailable naming files that cannot be read.

    Files that were readable before and have not changed since are skipped; `cache` records them.
    """
    state = json.dumps(unchanged(files))
    noted = f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.readable"
    if cache is not None and (cache.expanduser() / noted).is_file():
        return
    readable(files)
    if cache is not None:
        with suppress(OSError):
            cache.expanduser().mkdir(parents=True, exist_ok=True)
            (cache.expanduser() / noted).touch()


def save(known: Known, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half_written = file.with_suffix(f".{os.getpid()}")
    tensors = {name: x.contiguous() for name, x in known.features.items()}
    save_file(tensors, half_written, {"made_from": json.dumps(known.made_from)})
    half_written.replace(file)


@lru_cache(maxsize=4)
def of_file(file: Path) -> Known:
    """Load a file of features. Raises Unavailable if it is not one, or if one is infinite or NaN."""
    made_from = header(file)
    known = Known(load_file(file), made_from)
    for name, features in known.features.items():
        if not bool(features.isfinite().all()):
            raise Unavailable(f"{file}: {name} holds NaN or infinite numbers", AGAIN)
    return known


def header(file: Path) -> dict[str, Any]:
    """Return the provenance of a file of features. Raises Unavailable if it, or the row count, is wrong."""
    try:
        with safe_open(file, "pt") as opened:
            made_from = dict(json.loads(opened.metadata()["made_from"]))
            rows = {_rows(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except Exception as e:  # no file, not safetensors, no header or invalid JSON
        raise Unavailable(f"{file} is not a file of reference features ({e})", AGAIN) from e
    if rows != {made_from.get("count")}:
        raise Unavailable(f"{file} says count={made_from.get('count')} and has {sorted(rows)} rows", AGAIN)
    if "resolution" not in made_from:
        raise Unavailable(f"{file} does not say the resolution of its images", AGAIN)
    return made_from


def _rows(shape: Sequence[int]) -> int:
    if len(shape) != 2:
        raise ValueError(f"of shape {tuple(shape)}, not one row per image")
    return shape[0]

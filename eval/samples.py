"""The images of one method and the values computed from them: read, evaluated and released batch by batch.

No metric holds images. Each declares what it needs per image (`PerImage`: a value, or features); all metrics
are served in one pass, and values computed before, in this run or an earlier one, are reused.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Protocol, runtime_checkable  # as of Python 3.12: does not evaluate properties

from fovea.eval.rows import Column, Found, Rows
from fovea.source import followed, source, syntax

BATCH = 32  # images in memory at once, in addition to as many read ahead


class Unread(Exception):
    """Images could not be read, which no metric caused; the cause is the exception of `Images.read`."""


@runtime_checkable
class PerImage(Protocol):
    """A value computed from each image by itself.

    identity: everything it depends on besides the image and its prompt, as JSON.
    module: module whose code it depends on.
    paired: whether it also depends on the dense image of the same key.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def module(self) -> str: ...
    @property
    def paired(self) -> bool: ...
    def compute(self, batch: "Batch", /) -> Found: ...


@runtime_checkable
class Images(Protocol):
    """n images of one size, read on demand.

    ids: identify the images' contents.
    rows: values computed from them before, to which new ones are added.
    keep: write the values to persistent storage, if there is any.
    read: return uint8 (b, 3, H, W).
    part: select some of the images.
    """

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def rows(self, what: PerImage, /) -> Rows: ...
    def keep(self) -> None: ...
    def read(self, places: Sequence[int], /) -> Tensor: ...
    def part(self, places: Sequence[int], /) -> "Images": ...


class InMemory:
    """A tensor, uint8 (n, 3, H, W), as `Images`."""

    def __init__(self, images: Tensor, known: dict[str, Rows] | None = None):
        self.images, self.known = images, {} if known is None else known

    @property
    def ids(self) -> list[str]:
        return self._hashes

    @cached_property
    def _hashes(self) -> list[str]:
        each = (image.contiguous().numpy(force=True) for image in self.images)
        return [hashlib.sha256(f"{x.shape}".encode() + x.tobytes()).hexdigest() for x in each]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    def rows(self, what: PerImage) -> Rows:
        return self.known.setdefault(signature(what), Rows())

    def keep(self) -> None:
        """Nothing to do: there is no persistent storage."""

    def read(self, places: Sequence[int]) -> Tensor:
        return self.images[list(places)]

    def part(self, places: Sequence[int]) -> "InMemory":
        return InMemory(self.images[list(places)], self.known)


def signature(what: PerImage) -> str:
    """Return the class and identity of a per-image value as text."""
    of = f"{type(what).__module__}.{type(what).__qualname__}"
    return json.dumps({"of": of, "identity": what.identity}, sort_keys=True, default=str)


def computed_by(module: str) -> dict[str, Any]:
    """Return what a module's values depend on besides settings.

    These are its code, including imports from this package, torch's version, and whether there is a GPU.
    """
    return {"code": _code(module), "torch": version("torch"), "cuda": torch.cuda.is_available()}


@cache
def _code(module: str) -> str:
    files = [(name, syntax(source(name))) for name in sorted(followed(module, ("fovea.eval",)))]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Samples:
    """Images of one method, with what is needed to judge them.

    images: tensor, uint8 (n, 3, H, W), or `Images` that are read on demand.
    keys: one per image, unique, such as (prompt, seed) as text.
    dense: images of the unaccelerated model for the same keys in the same order, or None (`against` pairs
        them).
    random_weights: the model is untrained, so quality metrics must not score its images.
    """

    images: Tensor | Images
    prompts: Sequence[str]
    keys: Sequence[str]
    dense: Tensor | Images | None = None
    random_weights: bool = False

    def __post_init__(self):
        for name, x in (("images", self.images), ("dense", self.dense)):
            is_tensor = isinstance(x, Tensor)
            if is_tensor and (x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3 or not len(x)):
                raise ValueError(f"{name} must be uint8 (n, 3, H, W), not {x.dtype} {tuple(x.shape)}")
        shapes = [tuple(x.shape) for x in (self.dense, self.images) if isinstance(x, Tensor)]
        if len(set(shapes)) > 1:
            raise ValueError("dense {} does not pair with {}".format(*shapes))
        n = len(self.images) if isinstance(self.images, Tensor) else len(self.images.ids)
        counts = n, len(self.prompts), len(self.keys), len(set(self.keys))
        if len(set(counts)) > 1:
            raise ValueError("{} images, {} prompts and {} keys, {} distinct, do not pair".format(*counts))

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.source.size

    @cached_property
    def source(self) -> Images:
        return InMemory(self.images) if isinstance(self.images, Tensor) else self.images

    @cached_property
    def baseline(self) -> "Samples | None":
        """The dense images as samples."""
        if self.dense is None:
            return None
        dense: Any = self.dense
        if isinstance(dense, Tensor):  # images identical to the dense ones are evaluated once
            dense = InMemory(dense, self.source.known if isinstance(self.source, InMemory) else None)
        return Samples(dense, self.prompts, self.keys, random_weights=self.random_weights)

    def against(self, dense: "Samples") -> "Samples":
        """Pair these samples with the images that `dense` has for the same keys, in any order."""
        place = {key: i for i, key in enumerate(dense.keys)}
        if missing := [key for key in self.keys if key not in place]:
            raise ValueError(f"no dense image of {len(missing)} of {self.n} keys, such as {missing[0]!r}")
        places = [place[key] for key in self.keys]
        images = dense.images[places] if isinstance(dense.images, Tensor) else dense.images.part(places)
        random_weights = self.random_weights or dense.random_weights
        return Samples(self.images, self.prompts, self.keys, images, random_weights)

    def batches(self, size: int = BATCH, places: Sequence[int] | None = None) -> Iterator["Batch"]:
        """Yield all samples in order, or those at `places`, in batches."""
        places = range(self.n) if places is None else places
        return (Batch(self, places[i : i + size]) for i in range(0, len(places), size))

    def rows(self, what: PerImage) -> dict[str, Column]:
        """Return the value of each image, (n, ...) by name. Re-raises an exception of the computation."""
        self.compute([what])
        if error := self._failed.get(signature(what)):
            raise error
        return self.source.rows(what).take(self._ids(what.paired))

    def compute(self, wanted: Sequence[PerImage]) -> None:
        """Compute all of these in one pass over the images with missing values, reading ahead.

        What raises is skipped for the rest of the pass, and raised again by `rows`. Unreadable images raise
        here.
        """
        wanted = [what for what in wanted if not what.paired or self.dense is not None]
        places = sorted({i for what in wanted for i in self._missing(what)})
        try:
            for batch in ahead(self.batches(places=places)):
                for what in wanted:
                    self._try(what, batch)
        except Unread as error:
            raise error.__cause__ or error from None
        finally:
            for samples in filter(None, (self, self.baseline)):
                samples.source.keep()

    def _missing(self, what: PerImage) -> list[int]:
        return self.source.rows(what).missing(self._ids(what.paired))

    def _try(self, what: PerImage, batch: "Batch") -> None:
        name = signature(what)
        if name not in self._failed:
            try:
                batch.of(what)
            except Unread:
                raise
            except Exception as error:  # any failure affects only this value
                self._failed[name] = error

    @cached_property
    def _failed(self) -> dict[str, Exception]:
        return {}

    def _ids(self, paired: bool) -> list[str]:
        return self._paired if paired and self.baseline is not None else self._own

    @cached_property
    def _own(self) -> list[str]:
        return [_hash(*parts) for parts in zip(self.source.ids, self.prompts, strict=True)]

    @cached_property
    def _paired(self) -> list[str]:
        dense = self.baseline.source.ids if self.baseline else []
        return [_hash(*parts) for parts in zip(self.source.ids, self.prompts, dense, strict=True)]


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Batch:
    """Some of the samples. Images are read on first access."""

    def __init__(self, samples: Samples, places: Sequence[int]):
        self.samples, self.places = samples, places

    @cached_property
    def images(self) -> Tensor:
        """uint8 (b, 3, H, W). Raises Unread."""
        try:
            return self.samples.source.read(self.places)
        except Exception as error:
            raise Unread(str(error)) from error

    @cached_property
    def baseline(self) -> "Batch":
        """The dense images of the same keys. Raises LookupError if there are none."""
        if self.samples.baseline is None:
            raise LookupError("there are no dense images to compare with")
        return Batch(self.samples.baseline, self.places)

    @property
    def dense(self) -> Tensor:
        """uint8 (b, 3, H, W)"""
        return self.baseline.images

    @property
    def prompts(self) -> list[str]:
        return [self.samples.prompts[i] for i in self.places]

    def of(self, what: PerImage) -> dict[str, Tensor]:
        """Return the values (b, ...) by name, computing missing ones."""
        every = self.samples._ids(what.paired)
        ids, rows = [every[i] for i in self.places], self.samples.source.rows(what)
        if missing := rows.missing(ids):
            some = (
                self if len(missing) == len(ids) else Batch(self.samples, [self.places[i] for i in missing])
            )
            rows.add([ids[i] for i in missing], what.compute(some))
        return {name: column.tensor() for name, column in rows.take(ids).items()}

    def read(self, images: bool, dense: bool) -> None:
        """Read the images now."""
        _ = images and self.images, dense and self.dense

    @property
    def is_read(self) -> tuple[bool, bool]:
        """Whether the images, and the dense images, have been read."""
        return "images" in vars(self), "baseline" in vars(self) and "images" in vars(self.baseline)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield each batch while the next is read, as far as the previous one needed to be."""
    with ThreadPoolExecutor(1) as reader:
        batch, reading = next(batches, None), None
        needed = False, False
        while batch is not None:
            following = next(batches, None)
            if following is not None and any(needed):
                reading = reader.submit(following.read, *needed)
            yield batch
            needed = batch.is_read
            _wait(reading)
            batch, reading = following, None


def _wait(reading: "Future[None] | None") -> None:
    """Wait for reading to finish. Its exception is raised again on access to the images."""
    if reading is not None:
        reading.exception()

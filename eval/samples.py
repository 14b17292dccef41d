"""The images of one method, and what is found of each: read, looked at and dropped batch by batch.

No metric holds the images. It says what it needs to know of each (`PerImage`: a figure, or features), all
metrics are served in one pass, and what was found before, in this run or an earlier one, is not looked for
again.
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
from typing_extensions import Protocol, runtime_checkable  # those of Python 3.12, which call no property

from fovea.eval.rows import Column, Found, Rows
from fovea.source import followed, source, syntax

BATCH = 32  # images in memory at once, beside as many that are read ahead


class Unread(Exception):
    """Images that cannot be read, which is no metric's fault; the cause is what `Images.read` raised."""


@runtime_checkable
class PerImage(Protocol):
    """What is found of each image by itself.

    identity: as JSON, all that it depends on besides the image and its prompt. module: whose code it depends
    on. paired: whether the dense image of the same key is looked at, too.
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
    """n images of one size, read when they are needed.

    ids: what tells their contents. rows: what was found of them before, and where more is put; `keep` puts it
    where it outlasts the process, if anything does. read: uint8 (b, 3, H, W). part: some of them.
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
        """There is nowhere."""

    def read(self, places: Sequence[int]) -> Tensor:
        return self.images[list(places)]

    def part(self, places: Sequence[int]) -> "InMemory":
        return InMemory(self.images[list(places)], self.known)


def signature(what: PerImage) -> str:
    """What is found, as text: its class, and its identity."""
    of = f"{type(what).__module__}.{type(what).__qualname__}"
    return json.dumps({"of": of, "identity": what.identity}, sort_keys=True, default=str)


def computed_by(module: str) -> dict[str, Any]:
    """What a module's figures depend on besides their settings: its code with all that it imports from here,
    torch, and what torch computes on."""
    return {"code": _code(module), "torch": version("torch"), "cuda": torch.cuda.is_available()}


@cache
def _code(module: str) -> str:
    files = [(name, syntax(source(name))) for name in sorted(followed(module, ("fovea.eval",)))]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Samples:
    """Images of one method, with what they are to be judged by.

    images: a tensor, uint8 (n, 3, H, W), or `Images` that are read as needed. keys: one per image, unique,
    such as (prompt, seed) written out. dense: the images that the unaccelerated model makes of the same keys,
    in the same order, or None (`against` pairs them). random_weights: the model was never trained, so that no
    quality metric may give its images a number.
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
        """The dense images as samples of their own."""
        if self.dense is None:
            return None
        dense: Any = self.dense
        if isinstance(dense, Tensor):  # an image that is the dense one is looked at once
            dense = InMemory(dense, self.source.known if isinstance(self.source, InMemory) else None)
        return Samples(dense, self.prompts, self.keys, random_weights=self.random_weights)

    def against(self, dense: "Samples") -> "Samples":
        """These samples beside the images that `dense` has under the same keys, in whatever order."""
        place = {key: i for i, key in enumerate(dense.keys)}
        if missing := [key for key in self.keys if key not in place]:
            raise ValueError(f"no dense image of {len(missing)} of {self.n} keys, such as {missing[0]!r}")
        places = [place[key] for key in self.keys]
        images = dense.images[places] if isinstance(dense.images, Tensor) else dense.images.part(places)
        random_weights = self.random_weights or dense.random_weights
        return Samples(self.images, self.prompts, self.keys, images, random_weights)

    def batches(self, size: int = BATCH, places: Sequence[int] | None = None) -> Iterator["Batch"]:
        """All of them, or those at `places`, in order."""
        places = range(self.n) if places is None else places
        return (Batch(self, places[i : i + size]) for i in range(0, len(places), size))

    def rows(self, what: PerImage) -> dict[str, Column]:
        """What is found of each image, (n, ...) by name. Raises what the search raised."""
        self.compute([what])
        if error := self._failed.get(signature(what)):
            raise error
        return self.source.rows(what).take(self._ids(what.paired))

    def compute(self, wanted: Sequence[PerImage]) -> None:
        """All of these in one pass over the images that something is missing of, some of which are read while
        others are looked at. What raises is left out from there on, and raised by `rows`; images that cannot
        be read raise here."""
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
            except Exception as error:  # whatever it is, it costs this alone
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
    """Some of the samples. Their images are read when they are first asked for."""

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
        """(b, ...) by name: as it was found before, or else now."""
        every = self.samples._ids(what.paired)
        ids, rows = [every[i] for i in self.places], self.samples.source.rows(what)
        if missing := rows.missing(ids):
            some = (
                self if len(missing) == len(ids) else Batch(self.samples, [self.places[i] for i in missing])
            )
            rows.add([ids[i] for i in missing], what.compute(some))
        return {name: column.tensor() for name, column in rows.take(ids).items()}

    def read(self, images: bool, dense: bool) -> None:
        """Reads them now."""
        _ = images and self.images, dense and self.dense

    @property
    def is_read(self) -> tuple[bool, bool]:
        """The images; the dense ones."""
        return "images" in vars(self), "baseline" in vars(self) and "images" in vars(self.baseline)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Each batch, while the one after it is read: as far as the one before had to be."""
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
    """What it raises is raised again by whoever asks for the images."""
    if reading is not None:
        reading.exception()

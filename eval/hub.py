"""Locate transformers models and single hub files on this machine. Nothing is ever downloaded."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.weights import digest, located

WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # of transformers; the first match is used


def cached(repository: str, file: str) -> Path | None:
    """Return a file of `owner/name` in the hub cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError:  # not a repository name: a path that does not exist
        return None
    return Path(found) if isinstance(found, str) else None


def single(given: str | Path, repository: str, places: Sequence[Path], key: str) -> Path:
    """Find the file `given` as a path, or by its name in the hub cache of `repository` or in `places`.

    Raises Unavailable, listing all of these and the config key that takes a path.
    """
    name = Path(given).name
    for file in (located(given), cached(repository, name), *(p.expanduser() / name for p in places)):
        if file is not None and file.is_file():
            return file
    looked = ", ".join([str(given), f"the hub's cache of {repository}", *(str(p / name) for p in places)])
    raise Unavailable(
        f"no {name}: looked at {looked}",
        f"fetch it once, `hf download {repository} {name}`, or give `metric.NAME.{key}=FILE`",
    )


def folder(model: str, needed: Sequence[str], key: str) -> Path:
    """Find the folder of a transformers model, given as a path or as `owner/name` in the hub cache.

    needed: patterns, one of which must match a file. Otherwise raises Unavailable, naming the config key.
    """
    here = located(model)
    names = ("config.json", *(name for name in needed if "*" not in name))
    there = next((file for name in names if (file := cached(model, name))), None)
    place = here if here.is_dir() else there.parent if there else None
    if place is not None and any(any(place.glob(pattern)) for pattern in needed):
        return place
    where = f"{place} has no {' or '.join(needed)}" if place else "neither a folder nor in the hub's cache"
    remedy = f"fetch it once, `hf download {model}`, or give `metric.NAME.{key}=FOLDER`"
    raise Unavailable(f"no {model} on this machine: {where}", remedy)


def read(kind: Any, place: Path, **more: Any) -> Any:
    """Load a class of transformers from a folder. Raises Unavailable if that fails."""
    try:
        return kind.from_pretrained(place, local_files_only=True, **more)
    except Exception as e:  # invalid files fail in json, safetensors, tokenizers or torch
        raise Unavailable(f"transformers cannot load {place} ({e})", "check or fetch the files again") from e


class Pretrained:
    """A network in a transformers folder, and its processor; its weights are read on first use.

    read_network: returns the network, on `device`.
    identity: what its results depend on besides their input, as JSON.
    """

    def __init__(self, place: Path, processor: Any, read_network: Callable[[], Any], device: str):
        self._read, self.processor, self.device = read_network, processor, device
        of = ["pretrained", version("transformers"), unchanged(files(place))]
        pictures = getattr(processor, "image_processor", processor)
        self.identity: dict[str, Any] = {
            "weights": remembered(of, lambda: digests(place)),
            "config": digest(place / "config.json"),
            "resize": settings(pictures),
        }

    @cached_property
    def network(self) -> Any:
        return self._read()


def files(place: Path) -> list[Path]:
    """Return all files in a transformers folder."""
    return sorted(file for file in place.iterdir() if file.is_file())


def digests(place: Path) -> str:
    """Return the sha256 of the weights in a transformers folder: of the file, or of its parts' digests."""
    files = next(found for pattern in WEIGHTS if (found := sorted(place.glob(pattern))))
    if len(files) == 1:
        return digest(files[0])
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


def prepared(processor: Any, image: Image.Image) -> Tensor:
    """Preprocess with a transformers image processor: (3, h, w)."""
    return processor(images=image, return_tensors="pt").pixel_values[0]


def settings(processor: Any) -> list[tuple[str, str]]:
    """Return the settings of an image processor, as part of an encoder's identity."""
    return sorted((key, str(value)) for key, value in processor.to_dict().items())

"""Inspect a diffusers folder on disk without loading it."""

import json
import math
from pathlib import Path
from typing import Any

from fovea.models.autoencoder import vae_scale_factor


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def token_size(folder: Path | None) -> int:
    """Return the side of a token in pixels: the autoencoder's factor times a patch of 2; 16 by default."""
    config = read(folder / "vae" / "config.json") if folder else {}
    return 2 * vae_scale_factor(config) if config else 16


def component_classes(index: dict[str, Any]) -> dict[str, str | None]:
    """Return the class of each component in a model_index.json, None where the pipeline has none.

    Other entries are settings of the pipeline, some of them lists too (Krea 2's layers).
    """
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: kind for name, (_, kind) in pairs.items() if kind is None or isinstance(kind, str)}


def incomplete_reason(folder: Path, pipelines: tuple[str, ...]) -> str | None:
    """Return why the folder is not a complete checkpoint of one of `pipelines`; None if it is."""
    index = read(folder / "model_index.json")
    if not index:
        return f"{folder} has no model_index.json"
    if index.get("_class_name") not in pipelines:
        return f"{folder} holds a {index.get('_class_name')}, not a {pipelines[0]}"
    if not (folder / "transformer" / "config.json").is_file():
        return f"{folder} has no transformer"
    without_weights = ("Tokenizer", "TokenizerFast", "Processor", "Scheduler")
    for name, kind in component_classes(index).items():
        if kind is None or kind.endswith(without_weights):
            continue
        if missing := missing_weights(folder / name):
            return f"{folder / name} lacks {', '.join(missing)}"
    return None


def missing_weights(component: Path) -> list[str]:
    """Return the weight files that a component needs but does not have."""
    indices = [f for f in component.glob("*.safetensors.index.json") if f.name.count(".") == 3]
    needed = {name for index in indices for name in read(index)["weight_map"].values()}
    if not needed and not any(component.glob("*.safetensors")):
        return ["its .safetensors"]
    return sorted(name for name in needed if not (component / name).is_file())


def parameters(folder: Path) -> int:
    """Number of parameters of the components that diffusers loads, excluding other precision variants."""
    files = [f for f in sorted(folder.glob("*/*.safetensors")) if f.name.count(".") == 1]
    return sum(map(stored, files))


def stored(file: Path) -> int:
    """Number of parameters in a safetensors file, from its header (8 bytes of length, then JSON)."""
    with open(file, "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")

"""The identity of a cell: a hash of everything that affects its numbers.

    the resolved settings of model and method, defaults included; the batch size
    the weights (contents of small files, size and a sample of every tensor of large ones; the hash of a hub
        file), including those that the method's settings name
    the versions of torch, diffusers, transformers, numpy, and of the package of its quantised layers
    the source code that makes and times an image, found by following imports from the timed region (clock,
        rounding to 8 bits), from the model's family and from the method
    the device and the number of threads: a latency on another machine belongs to another cell

Not included: prompts and seeds, which are part of each sample's key, so that raising n continues a study; the
metrics, which use the stored images; where weights are obtained from; comments, docstrings and layout of the
source."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from fovea.models.quantize import KINDS
from fovea.source import followed, home, imported, source, syntax
from fovea.study.config.groups import ROOT

PACKAGES = ("torch", "diffusers", "transformers", "numpy")
TIMED = "fovea.study.run.generate"
FOLLOWED = ("fovea.models", "fovea.methods", "fovea.eval")  # planning and reporting code affects no number
FAMILIES = "fovea.models.families"
MADE_OF = ("packages", "code", "weights", "files")
RANDOM, QUANTISED = "fovea.models.random_weights", "fovea.models.quantize"
SMALL, BLOCK, PIECE = 64 << 20, 1 << 20, 4 << 10
HEADER = 100_000_000  # maximum header size in bytes of the safetensors format


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def cell(parts: Mapping[str, Any]) -> str:
    """Return a cell's id. Spellings of one setting give one id: the folder of the weights, which have a hash
    of their own, the device, whose name is the machine's, and `auto` for the dtype that it stands for."""
    model = {key: value for key, value in parts["model"].items() if key not in ("path", "device")}
    if model["dtype"] == "auto":
        model["dtype"] = "float32" if _on_cpu(parts["model"]["device"]) else "bfloat16"
    return digest({**parts, "model": model})


def packages(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the packages that affect a model's numbers."""
    quantised = model.get("quantize", "none")
    further = [] if quantised == "none" else [KINDS[quantised].package]
    return {name: _version(name) for name in (*PACKAGES, *further)}


def made_of(model: Mapping[str, Any], method: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell depends on here besides its settings and the machine: the keys of MADE_OF; `files`
    only if the method names any."""
    named = {"files": found} if (found := files(method)) else {}
    return {
        "packages": packages(model),
        "code": code(model, method),
        "weights": weights(model["path"], model["weights"]),
        **named,
    }


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # not needed for a forecast
        return "not installed"


def code(model: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """Return the hash of the source code that affects the numbers of this method on this model."""
    return _code(*code_entries(model, method))


def code_entries(
    model: Mapping[str, Any], method: Mapping[str, Any]
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return where that code is entered: the model's family, further modules, and the method's classes."""
    kinds = {RANDOM: model["weights"] == "random", QUANTISED: model.get("quantize", "none") != "none"}
    further = tuple(module for module, used in kinds.items() if used)
    return model["family"], further, tuple(sorted(set(targets_of(method))))


@cache
def _code(family: str, further: tuple[str, ...], targets: tuple[str, ...]) -> str:
    """Hash the source of the modules followed. Of the model families, only the model's own and those it
    builds on are included; modules that list all families would add the others."""
    found = followed(f"fovea.models.{family}", FOLLOWED)
    listed = [name for package, name in imported(source(FAMILIES)) if package == "fovea.models"]
    others = {f"fovea.models.{name}" for name in listed} - found
    for module in [TIMED, *further, *map(home, targets)]:
        found |= followed(module, FOLLOWED, others)
    return digest([(module, syntax(source(module))) for module in sorted(found)])


def targets_of(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the classes of a node and of its nested nodes."""
    yield node["_target_"]
    for value in node.values():
        if isinstance(value, Mapping) and "_target_" in value:
            yield from targets_of(value)


@cache
def weights(path: str, kind: str) -> str:
    """Return the hash of a local folder's contents, or the commit of a hub id."""
    if kind == "random":
        return "random"
    places = (Path(path).expanduser(), ROOT / path)
    here = next((p for p in places if (p / "model_index.json").is_file()), None)
    return folder(here) if here else f"{path}@{_commit(path)}"


def _commit(hub_id: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        index = try_to_load_from_cache(hub_id, "model_index.json")
        return (
            Path(index).parent.name
            if isinstance(index, str)
            else str(HfApi().model_info(hub_id, timeout=5).sha)
        )
    except Exception:  # no network or no such model: Checkpoint.check reports it
        return "unknown"


def files(method: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each weight file among a method's settings."""
    named = {key: Path(value) for key, value in method.items() if str(value).endswith(".safetensors")}
    return {key: _contents(file, file.stat().st_size) for key, file in named.items() if file.is_file()}


def folder(path: Path) -> str:
    """Return the hash of a checkpoint's weights and configs."""
    files = [
        f for f in sorted(path.rglob("*")) if f.suffix in (".safetensors", ".bin", ".json", ".model", ".txt")
    ]
    return digest([(str(f.relative_to(path)), _contents(f, f.stat().st_size)) for f in files if f.is_file()])


@cache
def _contents(file: Path, size: int) -> str:
    """Return the hash of a file. A large file is sampled: its size, its end, a block in each 64th and the
    middle of every tensor, so that a replaced tensor changes the hash. In the hub's cache, the link target's
    name is the hash already."""
    goal = file.resolve().name
    if file.is_symlink() and len(goal) in (40, 64):
        return goal
    step = BLOCK if size <= SMALL else size // 64
    total = hashlib.sha256(str(size).encode())
    with open(file, "rb") as stream:
        for place in [*range(0, size, step), max(0, size - BLOCK)]:
            stream.seek(place)
            total.update(stream.read(BLOCK))
        for place in _middles(stream, size) if size > SMALL else ():
            stream.seek(place)
            total.update(stream.read(PIECE))
    return total.hexdigest()


def _middles(stream: IO[bytes], size: int) -> list[int]:
    """Return the position of the middle of each tensor of a safetensors file; empty for other files."""
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if length > min(size, HEADER):
        return []
    try:
        header = json.loads(stream.read(length))
        ends = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
        found = [8 + length + (start + end) // 2 for start, end in sorted(ends)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [place for place in found if 0 <= place < size]


def threads() -> int:
    """Return the number of compute threads: OMP_NUM_THREADS, or the cores available to this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device(asked: str) -> str:
    """Return "cpu" for "auto" if there is no GPU, which is determined without importing torch."""
    return "cpu" if asked == "auto" and not has_gpu() else asked


def _on_cpu(asked: str) -> bool:
    """True if the device is a CPU; `auto` may be one beside a GPU that torch cannot use."""
    if device(asked) == "cpu":
        return True
    import torch  # deferred: the import takes seconds

    return asked == "auto" and not torch.cuda.is_available()


@cache
def machine(asked: str) -> str:
    """Return the name of the device; for a CPU with the number of threads."""
    if device(asked) != "cpu":
        import torch  # deferred: the import takes seconds

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(None if asked == "auto" else asked)
    return f"{_processor()}, {threads()} threads"


def has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

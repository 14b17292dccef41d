"""What a cell is: the hash of all that touches its numbers.

    the resolved settings of model and method, defaults included; the size of a batch
    the weights (contents of small files, size and a sample of large ones; a hub file's own hash)
    the versions of torch, diffusers, transformers, numpy, and the source of models/ and of the method
    the device and the number of threads: a latency of another machine is another cell's

Not part of it: prompts and seeds, which are each sample's key, so that raising n goes on; the metrics, which
are computed anew from the stored images; comments and layout of the source."""

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fovea.study.config.light import light

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "diffusers", "transformers", "numpy")
SMALL, BLOCK = 64 << 20, 1 << 20


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


@cache
def packages() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def code(*modules: str) -> str:
    """Hash of models/ and of a method's modules with what they import from methods/: their syntax, not their
    layout."""
    own = {file for module in modules for file in _imported(module)}
    files = sorted((ROOT / "models").glob("*.py")) + sorted(own)
    return digest([(f.name, ast.dump(ast.parse(f.read_text("utf-8")))) for f in files])


def home(target: str) -> str:
    """The module that a class is written in: methods.RAS -> methods.ras."""
    found = light(target)
    module = getattr(found, "__module__", "").removeprefix("light.")
    return module or target.rsplit(".", 1)[0]


def _imported(module: str, seen: Iterable[Path] = ()) -> set[Path]:
    found = set(seen)
    file = ROOT / (module.removeprefix("fovea.").replace(".", "/") + ".py")
    if file in found or not file.is_file():
        return found
    found.add(file)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fovea.methods"):
            for name in [node.module, *(f"{node.module}.{a.name}" for a in node.names)]:
                found |= _imported(str(name), found)
    return found


@cache
def weights(path: str, kind: str) -> str:
    """Of a local folder its contents, of a hub id the commit."""
    if kind == "random":
        return "random"
    here = next((p for p in (Path(path), ROOT / path) if p.is_dir()), None)
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
    except Exception:  # no network, no such model: Checkpoint.check says so
        return "unknown"


def folder(path: Path) -> str:
    """Hash of a checkpoint's weights and configs."""
    files = [
        f for f in sorted(path.rglob("*")) if f.suffix in (".safetensors", ".bin", ".json", ".model", ".txt")
    ]
    return digest([(str(f.relative_to(path)), _contents(f, f.stat().st_size)) for f in files if f.is_file()])


@cache
def _contents(file: Path, size: int) -> str:
    """Hash of a file; of a large one its size, its end and a block in each 64th. In the hub's cache the
    link's goal is the hash already."""
    goal = file.resolve().name
    if file.is_symlink() and len(goal) in (40, 64):
        return goal
    step = BLOCK if size <= SMALL else size // 64
    total = hashlib.sha256(str(size).encode())
    with open(file, "rb") as stream:
        for place in [*range(0, size, step), max(0, size - BLOCK)]:
            stream.seek(place)
            total.update(stream.read(BLOCK))
    return total.hexdigest()


def threads() -> int:
    """Threads for the arithmetic: OMP_NUM_THREADS, or the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device(asked: str) -> str:
    """ "auto" as "cpu" where there is no GPU, which takes no torch to tell."""
    return "cpu" if asked == "auto" and not has_gpu() else asked


@cache
def machine(asked: str) -> str:
    """The device by name, with the threads where those matter."""
    if device(asked) == "cpu":
        return f"{_processor()}, {threads()} threads"
    import torch  # as late as this: it takes seconds

    if not torch.cuda.is_available():
        return f"{_processor()}, {threads()} threads"
    return torch.cuda.get_device_name(None if asked == "auto" else asked)


def has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine
    )

"""Caches on this machine for computed results and downloaded files."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any


def home() -> Path:
    """Return the cache directory of the XDG specification; an empty or relative variable is ignored."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path("~/.cache")


CACHE = home() / "fovea"
HUB = Path(os.environ.get("TORCH_HOME") or home() / "torch") / "hub"  # torch.hub's cache


def remembered(of: Any, find: Callable[[], Any]) -> Any:
    """Return find(), a JSON value, cached on this machine under the key `of`, also JSON.

    of: everything the result depends on. An exception from `find` propagates and is not cached.
    """
    name = hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:32]
    file = (CACHE / "facts").expanduser() / f"{name}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    text = json.dumps(find())
    with suppress(OSError):  # without a writable folder it is recomputed each time
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{token_hex(4)}")
        part.write_text(text, "utf-8")
        part.replace(file)
    return json.loads(text)


def unchanged(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Return path, size and modification time of each file, which stay the same unless it is written to."""
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]

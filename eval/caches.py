"""Where what was computed or fetched before is kept on this machine."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any


def home() -> Path:
    """Of caches, by the XDG base directory specification: a variable that is empty or relative is none."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path("~/.cache")


CACHE = home() / "fovea"
HUB = Path(os.environ.get("TORCH_HOME") or home() / "torch") / "hub"  # torch's


def remembered(of: Any, find: Callable[[], Any]) -> Any:
    """What `find` gives, as JSON; found once on this machine for all that it depends on, `of`, as JSON too.
    What `find` raises is raised, and not remembered."""
    name = hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:32]
    file = (CACHE / "facts").expanduser() / f"{name}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text("utf-8"))
    text = json.dumps(find())
    with suppress(OSError):  # a folder that cannot be written to costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{token_hex(4)}")
        part.write_text(text, "utf-8")
        part.replace(file)
    return json.loads(text)


def unchanged(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of change of each file: they are the same as long as nobody writes to it."""
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]

"""Where what was computed or fetched before is kept on this machine."""

import os
from pathlib import Path


def home() -> Path:
    """Of caches, by the XDG base directory specification: a variable that is empty or relative is none."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else Path("~/.cache")


CACHE = home() / "fovea"
HUB = Path(os.environ.get("TORCH_HOME") or home() / "torch") / "hub"  # torch's

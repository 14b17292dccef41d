"""What a cell is called: by its method and the keys that are swept, or as its point says."""

from collections.abc import Mapping
from typing import Any

from fovea.study.config.override import NESTED

NAMING = ("model", "method", "method/cache")  # groups that a name is made of


def named(method: str, point: Mapping[str, Any], label: str | None = None) -> str:
    """ras ratio=0.5; the cache's name for caching; the model in front where several are swept. label: what
    the point is called instead."""
    if label is not None:
        return " ".join([*([point["model"]] if "model" in point else []), label])
    shown = {key: value for key, value in point.items() if NESTED.get(key, key) not in NAMING}
    leaves = [key.split(".")[-1] for key in shown]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(shown, leaves, strict=True)}
    values = (f"{names[key]}={short(value)}" for key, value in shown.items())
    return " ".join([series(method, point), *values])


def series(method: str, point: Mapping[str, Any]) -> str:
    """The same without settings: model, method, cache."""
    cache = {NESTED.get(key, key): value for key, value in point.items()}.get("method/cache")
    cache = None if cache in (None, "None") or method.endswith("_caching") else cache
    name = cache if cache and method == "caching" else f"{method} {cache}" if cache else method
    return " ".join([*([point["model"]] if "model" in point else []), name])


def short(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def origin(point: Mapping[str, Any], label: str | None = None) -> str:
    """Which point of the sweep a refusal is about."""
    if not point:
        return ""
    where = ", ".join(f"{key}={value}" for key, value in point.items())
    called = f" ({label})" if label else ""
    return f"\n  at the grid point {where}{called}; sweep=none runs the one method"

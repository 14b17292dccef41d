"""Packages whose names are imported when they are first asked for (PEP 562): a class of settings can be had
without what stands beside it and takes seconds, torchmetrics, diffusers."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The package's `__getattr__`. homes: of each name, the module of the package that it is written in."""

    def found(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return found

"""From a config node (`_target_: fovea.methods.RAS`, keyword arguments) to its object, by
`hydra.utils.instantiate`, or to one clear sentence.

Only dataclasses of this package are ever instantiated: a config is data, and cannot name code to run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException
from pydantic import ValidationError

from fovea.study.config.errors import Refused, nearest, shown

Node = Mapping[str, Any]
WORDS = {  # pydantic's, to those of a config
    "Input should be ": "must be ",
    "None": "null",
    "Tuple": "list",
    "tuple": "list",
    " after validation": "",
}
Kind = TypeVar("Kind")


def instantiate(node: Node, where: str, package: str) -> Any:
    """The object of a node, with those of the nodes in it. where: its place in the config, for messages;
    package: where its class and theirs must live, `fovea.methods`."""
    kind = _class(node, where, package)
    inner = dict(_nodes(node))
    for key, value in inner.items():
        _class(value, f"{where}.{key}", package)
    try:
        made = hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        for key, value in inner.items():  # its own message where the fault is in one of them
            instantiate(value, f"{where}.{key}", package)
        if isinstance(error.__cause__, ValidationError):
            raise Refused(_sentence(error.__cause__, kind, node, where)) from None
        raise Refused(f"{where}: {error.__cause__ or error}") from None
    _no_switch(made, node, where)
    return made


def validated(kind: type[Kind], node: Node, where: str = "") -> Kind:
    """The object of a class of ours with the node's values."""
    try:
        made = kind(**node)
    except ValidationError as error:
        raise Refused(_sentence(error, kind, node, where)) from None
    _no_switch(made, node, where)
    return made


def varied(made: Any, changes: Node, where: str) -> Any:
    """The object with some fields set anew, checked as when it was made. changes: `cache.interval` is a field
    of the object in the field `cache`."""
    new: dict[str, Any] = {}
    for key, value in changes.items():
        name, dot, rest = key.partition(".")
        if dot:
            inner = new.get(name, getattr(made, name, None))
            if not is_dataclass(inner):
                raise Refused(f"{where}.{key}={shown(value)}: there is no {where}.{name} that has settings")
            value = varied(inner, {rest: value}, f"{where}.{name}")
        new[name] = value
    try:
        found = replace(made, **new)
    except ValidationError as error:
        raise Refused(_sentence(error, type(made), new, where)) from None
    _no_switch(found, new, where)
    return found


def obstacle(made: Any) -> str | None:
    """Why an object's own `check()` says that it cannot do its work here, or None."""
    try:
        made.check()
    except Exception as error:  # whatever stops it would stop the run: missing weights, no device, no memory
        return str(error) or type(error).__name__
    return None


def _class(node: Any, where: str, package: str) -> type:
    """The dataclass that the node names. Refused unless it is one of the package."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise Refused(f"{where}: needs a _target_ such as {package}.Class, not {shown(target)}")
    if odd := [key for key in node if str(key).startswith("_") and key != "_target_"]:
        raise Refused(f"{where}.{odd[0]}={shown(node[odd[0]])}: there is no such setting")
    module, _, name = target.rpartition(".")
    if module != package and not module.startswith(f"{package}."):
        raise Refused(f"{where}._target_={shown(target)}: only classes of {package} can stand here")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not target.startswith(error.name):
            raise
        found = None
    if not isinstance(found, type) or not is_dataclass(found):
        raise Refused(f"{where}._target_={shown(target)}: there is no such class")
    names = [f.name for f in fields(found) if f.init]
    for key in (key for key in node if key != "_target_" and key not in names):
        raise Refused(f"{where}.{key}={shown(node[key])}: {name} has no {key}; {nearest(str(key), names)}")
    return found


def _nodes(value: Any, where: str = "") -> Iterator[tuple[str, Node]]:
    """The nodes within a value, each with its place, the innermost first."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, Mapping | list | tuple):
            yield from _nodes(inner, f"{where}{key}.")
            if isinstance(inner, Mapping) and "_target_" in inner:
                yield f"{where}{key}", inner


def _no_switch(made: Any, node: Node, where: str) -> None:
    """Pydantic takes true for 1, 1 for true, and infinity for a number."""
    for place, value, allowed in _lenient(node, made, where):
        raise Refused(f"{place}={shown(value)}: must be {allowed}")


def _lenient(value: Any, kept: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Where that was so: the place, the value, and what is allowed."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            of = kept.get(key) if isinstance(kept, Mapping) else getattr(kept, str(key), None)
            yield from _lenient(inner, of, _place(where, key))
    elif isinstance(value, list | tuple) and isinstance(kept, list | tuple):
        for inner, of in zip(value, kept, strict=False):
            yield from ((place, value, allowed) for place, _, allowed in _lenient(inner, of, where))
    elif isinstance(kept, int | float) and isinstance(value, bool) != isinstance(kept, bool):
        yield where, value, "true or false" if isinstance(kept, bool) else "a number, not true or false"
    elif isinstance(kept, float) and not math.isfinite(kept):
        yield where, value, "a finite number"


def _place(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _sentence(error: ValidationError, kind: type, node: Node, where: str) -> str:
    """Of each setting at fault its value, what pydantic says of it, and the nearest that is allowed."""
    found: dict[str, list[str]] = {}
    faults = error.errors()
    of_items = {fault["loc"][:1] for fault in faults if len(fault["loc"]) > 1}
    for fault in faults:
        if fault["type"] == "too_short" and fault["loc"] in of_items:
            continue  # pydantic leaves out what is wrong before it counts
        name = str(fault["loc"][0]) if fault["loc"] else ""
        found.setdefault(name, []).append(_reason(fault, name, kind, node, where))
    lines = []
    for name, reasons in found.items():
        said = ", or ".join(dict.fromkeys(reasons)).replace(", or must be ", " or ")
        if name in node:
            lines.append(f"{_place(where, name)}={shown(node[name])}: {said}")
        else:
            lines.append(f"{_place(where, name) if name else where}: {said}".removeprefix(": "))
    return "\n".join(lines)


def _reason(fault: Any, name: str, kind: Any, node: Node, where: str) -> str:
    if fault["type"] == "unexpected_keyword_argument":
        return f"{kind.__name__} has no {name}; {nearest(name, (f.name for f in fields(kind) if f.init))}"
    if fault["type"] in ("missing", "missing_argument"):
        return "is missing"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    said = fault["msg"]
    for theirs, ours in WORDS.items():
        said = said.replace(theirs, ours)
    if fault["type"] == "literal_error":
        hint, asks, _ = nearest(node.get(name), fault["ctx"]["expected"].split("'")[1::2]).partition("? ")
        return f"{said} ({hint}?)" if asks else said
    if fault["type"] == "string_type" and isinstance(node.get(name), int | float):
        return f"{said}: \"{_place(where, name)}='{shown(node[name])}'\""
    return said[:1].lower() + said[1:]

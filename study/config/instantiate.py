"""Turn a config node (`_target_: fovea.methods.RAS` and keyword arguments) into its object with
`hydra.utils.instantiate`, or raise Refused with one clear sentence.

Only dataclasses of this package are instantiated: a config is data and cannot name arbitrary code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException
from pydantic import ValidationError

from fovea.study.config.errors import Refused, as_text, nearest

Node = Mapping[str, Any]
WORDS = {  # pydantic's terms to those of a config
    "Input should be ": "must be ",
    "None": "null",
    "Tuple": "list",
    "tuple": "list",
    " after validation": "",
}
Kind = TypeVar("Kind")


def instantiate(node: Node, where: str, package: str) -> Any:
    """Return the object of a node, including nested nodes.

    where: place of the node in the config, for messages.
    package: the package in which its class and nested ones must be defined, such as `fovea.methods`.
    """
    kind = _class(node, where, package)
    inner = dict(_nodes(node))
    for key, value in inner.items():
        _class(value, f"{where}.{key}", package)
    try:
        made = hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        for key, value in inner.items():  # if a nested node is at fault, this raises its own message
            instantiate(value, f"{where}.{key}", package)
        if isinstance(error.__cause__, ValidationError):
            raise Refused(_explain(error.__cause__, kind, node, where)) from None
        raise Refused(f"{where}: {error.__cause__ or error}") from None
    _reject_coerced(made, node, where)
    return made


def validated(kind: type[Kind], node: Node, where: str = "") -> Kind:
    """Return an instance of one of our classes with the node's values."""
    try:
        made = kind(**node)
    except ValidationError as error:
        raise Refused(_explain(error, kind, node, where)) from None
    _reject_coerced(made, node, where)
    return made


def with_changes(made: Any, changes: Node, where: str) -> Any:
    """Return a copy of the object with some fields replaced and validated. changes: by key; `cache.interval`
    is a field of the object in the field `cache`."""
    new: dict[str, Any] = {}
    for key, value in changes.items():
        name, dot, rest = key.partition(".")
        if dot:
            inner = new.get(name, getattr(made, name, None))
            if not is_dataclass(inner):
                raise Refused(f"{where}.{key}={as_text(value)}: {where}.{name} has no settings")
            value = with_changes(inner, {rest: value}, f"{where}.{name}")
        new[name] = value
    try:
        found = replace(made, **new)
    except ValidationError as error:
        raise Refused(_explain(error, type(made), new, where)) from None
    _reject_coerced(found, new, where)
    return found


def obstacle(made: Any) -> str | None:
    """Return why the object's `check()` says that it cannot work here, or None."""
    try:
        made.check()
    except Exception as error:  # any error would also stop the run: missing weights, no device, no memory
        return str(error) or type(error).__name__
    return None


def _class(node: Any, where: str, package: str) -> type:
    """Return the dataclass that a node names. Raises Refused unless it belongs to the package and has the
    node's keys."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise Refused(f"{where}: needs a _target_ such as {package}.Class, not {as_text(target)}")
    if odd := [key for key in node if str(key).startswith("_") and key != "_target_"]:
        raise Refused(f"{where}.{odd[0]}={as_text(node[odd[0]])}: there is no such setting")
    module, _, name = target.rpartition(".")
    if module != package and not module.startswith(f"{package}."):
        raise Refused(f"{where}._target_={as_text(target)}: must be a class of {package}")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not target.startswith(error.name):
            raise
        found = None
    if not isinstance(found, type) or not is_dataclass(found):
        raise Refused(f"{where}._target_={as_text(target)}: there is no such class")
    names = [f.name for f in fields(found) if f.init]
    for key in (key for key in node if key != "_target_" and key not in names):
        raise Refused(f"{where}.{key}={as_text(node[key])}: {name} has no {key}; {nearest(str(key), names)}")
    return found


def _nodes(value: Any, where: str = "") -> Iterator[tuple[str, Node]]:
    """Yield the nodes within a value with their places, innermost first."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, Mapping | list | tuple):
            yield from _nodes(inner, f"{where}{key}.")
            if isinstance(inner, Mapping) and "_target_" in inner:
                yield f"{where}{key}", inner


def _reject_coerced(made: Any, node: Node, where: str) -> None:
    """Reject values that pydantic converts silently: true to 1, 1 to true; and infinity as a number."""
    for place, value, allowed in _coerced(node, made, where):
        raise Refused(f"{place}={as_text(value)}: must be {allowed}")


def _coerced(value: Any, kept: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the place, the value and what is allowed of each value coerced in this way."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            kept_inner = kept.get(key) if isinstance(kept, Mapping) else getattr(kept, str(key), None)
            yield from _coerced(inner, kept_inner, _place(where, key))
    elif isinstance(value, list | tuple) and isinstance(kept, list | tuple):
        for inner, kept_inner in zip(value, kept, strict=False):
            yield from ((place, value, allowed) for place, _, allowed in _coerced(inner, kept_inner, where))
    elif isinstance(kept, int | float) and isinstance(value, bool) != isinstance(kept, bool):
        yield where, value, "true or false" if isinstance(kept, bool) else "a number, not true or false"
    elif isinstance(kept, float) and not math.isfinite(kept):
        yield where, value, "a finite number"


def _place(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _explain(error: ValidationError, kind: type, node: Node, where: str) -> str:
    """Return one line per invalid setting: its value, pydantic's reason and the nearest allowed value."""
    found: dict[str, list[str]] = {}
    faults = error.errors()
    with_item_errors = {fault["loc"][:1] for fault in faults if len(fault["loc"]) > 1}
    for fault in faults:
        if fault["type"] == "too_short" and fault["loc"] in with_item_errors:
            continue  # pydantic counts only valid items; the errors of the others are reported
        name = str(fault["loc"][0]) if fault["loc"] else ""
        found.setdefault(name, []).append(_reason(fault, name, kind, node, where))
    lines = []
    for name, reasons in found.items():
        message = ", or ".join(dict.fromkeys(reasons)).replace(", or must be ", " or ")
        if name in node:
            lines.append(f"{_place(where, name)}={as_text(node[name])}: {message}")
        else:
            lines.append(f"{_place(where, name) if name else where}: {message}".removeprefix(": "))
    return "\n".join(lines)


def _reason(fault: Any, name: str, kind: Any, node: Node, where: str) -> str:
    if fault["type"] == "unexpected_keyword_argument":
        return f"{kind.__name__} has no {name}; {nearest(name, (f.name for f in fields(kind) if f.init))}"
    if fault["type"] in ("missing", "missing_argument"):
        return "is missing"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "dataclass_type" and isinstance(inner := node.get(name), Mapping):
        given = str(inner.get("_target_")).rpartition(".")[2]
        return f"must be a {fault['ctx']['class_name']}, not a {given}"
    message = fault["msg"]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    if fault["type"] == "literal_error":
        hint, asks, _ = nearest(node.get(name), fault["ctx"]["expected"].split("'")[1::2]).partition("? ")
        return f"{message} ({hint}?)" if asks else message
    if fault["type"] == "string_type" and isinstance(node.get(name), int | float):
        return f"{message}: \"{_place(where, name)}='{as_text(node[name])}'\""
    return message[:1].lower() + message[1:]

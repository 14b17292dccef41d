"""From a config node (`_target_: fovea.methods.ras.RAS`, keyword arguments) to the object, or to one clear
message.

Only classes of this repository's own packages are ever looked up: a config is data, and cannot name code to
run."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from fovea.study.config.errors import Refused, nearest
from fovea.study.config.light import light

PACKAGES = ("fovea.methods", "fovea.models", "fovea.eval", "fovea.study")
BOUNDS = {
    "gt": "greater than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
    "min_length": "of a length of at least",
}


def build(node: Mapping[str, Any], where: str, package: str) -> Any:
    """The object of a node. where: its place in the config, for messages; package: where its class must
    live."""
    return _built(_class(_target(node, where, package)), node, where, build)


def check(node: Mapping[str, Any], where: str, package: str) -> Any:
    """Refuses what `build` would refuse and gives an object with the same fields, without running the class's
    module where that can be helped.

    The class is read from its source with its fields and its own checks and nothing else (light.py),
    because importing torch takes longer than a wrong number should take to be refused."""
    target = _target(node, where, package)
    try:
        return _built(light(target) or _class(target), node, where, check)
    except (NameError, AttributeError, TypeError):
        return _built(_class(target), node, where, build)  # its own check needs the whole module


def obstacle(node: Mapping[str, Any], where: str, package: str) -> str | None:
    """Why the object's own `check()` says that it cannot do its work here, or None."""
    return asked(node, where, package, _complaint)


def asked(node: Mapping[str, Any], where: str, package: str, question: Callable[[Any], Any]) -> Any:
    """The question's answer for the object, of its light form where that can tell."""
    made = check(node, where, package)
    try:
        return question(made)
    except (NameError, AttributeError, TypeError):
        return question(build(node, where, package))


def _complaint(made: Any) -> str | None:
    try:
        made.check()
    except (NameError, AttributeError, TypeError):
        raise
    except (
        Exception
    ) as error:  # whatever stops it would stop the run: missing weights, no such device, no memory
        return str(error) or type(error).__name__
    return None


def _target(node: Mapping[str, Any], where: str, package: str) -> str:
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str) or target.count(".") < 1:
        raise Refused(f"{where}: a config needs a _target_ such as {package}.module.Class, not {target!r}")
    home = ".".join(target.split(".")[:2])
    if home not in PACKAGES or home != package:
        raise Refused(f"{where}._target_={target}: only classes of {package} can stand here")
    return target


def _class(target: str) -> type:
    module, name = target.rsplit(".", 1)
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not target.startswith(error.name):
            raise
        found = None
    if not is_dataclass(found) or not isinstance(found, type):
        raise Refused(f"_target_={target}: there is no such class")
    return found


def _built(cls: type, node: Mapping[str, Any], where: str, inner: Callable[..., Any]) -> Any:
    prefix = f"{where}." if where else ""
    known = {f.name: f.type for f in fields(cls) if f.init}
    given = {str(key): value for key, value in node.items() if key != "_target_"}
    for key, value in given.items():
        if key not in known:
            raise Refused(f"{prefix}{key}={value}: {cls.__name__} has no {key}; {nearest(key, known)}")
        if isinstance(value, Mapping) and "_target_" in value:
            given[key] = inner(value, f"{prefix}{key}", ".".join(str(value["_target_"]).split(".")[:2]))
        elif isinstance(value, bool) and "bool" not in str(known[key]):
            raise Refused(f"{prefix}{key}={value}: must be {words(known[key])}, not true or false")
    try:
        return cls(**given)
    except ValidationError as error:
        raise Refused("\n".join(_message(e, prefix, known, given) for e in error.errors())) from None


def _message(error: Any, prefix: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    place = [str(part) for part in error["loc"] if not _is_branch(part)]
    if error["type"] == "value_error" and not (place and place[0] in known):
        return f"{prefix.removesuffix('.')}: {error['ctx']['error']}".removeprefix(": ")
    name = place[0] if place else "?"
    if error["type"] in ("missing", "missing_argument"):
        return f"{prefix}{name}: missing; give {words(known.get(name, Any))}"
    value = given.get(name, error["input"])
    reason = (
        str(error["ctx"]["error"]) if error["type"] == "value_error" else f"must be {words(known.get(name))}"
    )
    if reason == "must be ":
        reason = error["msg"][:1].lower() + error["msg"][1:]
    close = nearest(value, _literals(known.get(name))).split("? ")
    hint = f" ({close[0]}?)" if len(close) > 1 else ""
    return f"{prefix}{name}={value}: {reason}{hint}"


def _is_branch(part: Any) -> bool:
    """pydantic names the branch of a union it tried inside the location: constrained-float, int,
    literal[...]."""
    return isinstance(part, str) and (part in ("int", "float", "str", "none") or not part.isidentifier())


def words(kind: Any) -> str:
    """A field's type in words: "a number greater than 0 and at most 1", "one of std, norm", "a list of
    ..."."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = [text for m in arguments[1:] for text in _limits(m)]
        return words(arguments[0]) + (" " + " and ".join(limits) if limits else "")
    if literals := (_literals(kind) if not _branches(kind) else []):
        return ("one of " if len(literals) > 1 else "") + ", ".join(map(str, literals))
    if branches := _branches(kind):
        return " or ".join(words(branch) for branch in branches)
    if origin in (list, tuple):
        inner = next((a for a in arguments if a is not ...), Any)
        return f"a list of {words(inner).removeprefix('a ').removeprefix('whole ')}".replace(
            "number", "numbers"
        )
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", "") if isinstance(kind, type) else "")


def _branches(kind: Any) -> tuple:
    return get_args(kind) if "Union" in str(get_origin(kind)) else ()


def _literals(kind: Any) -> list[str]:
    nested = [value for a in get_args(kind) if get_origin(kind) is not Annotated for value in _literals(a)]
    return [str(a) for a in get_args(kind)] if "Literal" in str(get_origin(kind)) else nested


def _limits(mark: Any) -> list[str]:
    marks = getattr(mark, "metadata", [mark])
    return [f"{text} {getattr(m, name)}" for m in marks for name, text in BOUNDS.items() if hasattr(m, name)]

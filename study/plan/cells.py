"""A study's cells: the dense baselines, every point of the grid, and step reduction beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import product
from typing import Any, Literal

from fovea.study.config.compose import load, options, resolved, stand_in
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import check
from fovea.study.config.light import light
from fovea.study.config.schema import Settings, Sweep
from fovea.study.plan import fingerprint
from fovea.study.plan.labels import named, origin, series

# of the model's settings: one loading serves all values of these
GENERATION = ("height", "width", "steps", "guidance", "negative", "max_sequence_length")
Node = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One row of the table. id: see fingerprint.py. role: what it is for; a "diagnosis" says what a method
    could do and is none, and is not ranked. axes: the grid keys that tell it apart. dense: id of the baseline
    that it is compared with. series: the name that it shares with cells of other settings."""

    id: str
    label: str
    role: Literal["dense", "method", "steps", "diagnosis"]
    series: str
    model: Node
    method: Node
    axes: dict[str, Any]
    dense: str
    off: bool  # the settings switch the method off: it is meant to do what the baseline does
    identity: dict[str, Any] = field(repr=False, compare=False)


def cells(
    overrides: Sequence[str], sweep: Sweep, settings: Settings, picked: Mapping[str, str]
) -> list[Cell]:
    """Each identity once: a value listed twice is one cell, a baseline among the methods is the baseline."""
    return unique(_cells(overrides, sweep, settings, picked))


def _cells(
    overrides: Sequence[str], sweep: Sweep, settings: Settings, picked: Mapping[str, str]
) -> Iterable[Cell]:
    models, methods = [], []
    for point in points(sweep):
        label = point.pop("label", None)
        try:
            config = load(overrides, point)
            model, method = checked(resolved(config, "model"), resolved(config, "method"))
        except Refused as error:
            raise Refused(f"{error}{origin(point, label)}") from None
        shown = {} if "method" in point else {"cache": picked.get("method/cache")}
        shown |= point | ({"model": stand_in(overrides, point["model"])} if "model" in point else {})
        dense = _dense(model | {"steps": _steps(overrides, point)}, settings, shown.get("model"))
        name = point.get("method", picked["method"])
        called = named(name, shown, label), "method", series(name, shown)
        models.append(dense)
        methods.append(_cell(*called, model, method, settings, point, dense.id))
    yield from models
    yield from methods
    for dense in unique(models):
        before = dense.label.removesuffix("dense")
        for steps in sweep.curve_steps(dense.model["steps"]):
            method = {"_target_": "fovea.methods.Steps", "steps": steps, "solver": sweep.solver}
            called = f"{before}{steps} steps", "steps", f"{before}step reduction"
            axes = dense.axes | {"method.steps": steps}
            yield _cell(*called, *checked(dense.model, method), settings, axes, dense.id)


def points(sweep: Sweep) -> list[dict[str, Any]]:
    """What each cell sets: the grid's product, times the cells written out."""
    grid = [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
    return [point | extra for point in grid for extra in sweep.points or ({},)]


def _dense(model: Node, settings: Settings, name: str | None) -> Cell:
    """name: of the model, where several are swept."""
    method = {"_target_": "fovea.methods.Baseline", "steps": model["steps"]}
    called, axes = (f"{name} dense", {"model": name}) if name else ("dense", {})
    return _cell(called, "dense", "dense", *checked(model, method), settings, axes, "")


def checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Both with every default filled in, so that saying a default and leaving it out are the same cell. A
    model's file may hold a method's settings on it under the method's name, for conf/method to take up: they
    are no model's own."""
    known = {*options("method"), *options("method/cache")}
    model = {key: v for key, v in model.items() if not (isinstance(v, Mapping) and key in known)}
    checkpoint, made = check(model, "model", "fovea.models"), check(method, "method", "fovea.methods")
    if hasattr(made, "check"):
        try:
            made.check(checkpoint.grid)
        except ValueError as error:
            raise Refused(
                f"method with model.height={model['height']}, model.width={model['width']}: {error}"
            ) from None
    return _full(model, checkpoint), _full(method, made)


def _full(node: Node, made: Any) -> Node:
    """The node with every field of its object, and of the objects in it."""
    values = {f.name: getattr(made, f.name) for f in fields(made)}
    inner = {
        name for name, value in values.items() if isinstance(node.get(name), Mapping) and is_dataclass(value)
    }
    full = {name: _full(node[name], value) if name in inner else value for name, value in values.items()}
    return {"_target_": node["_target_"]} | full


def _targets(node: Mapping[str, Any]) -> list[str]:
    """The classes of a node and of those in it."""
    return [node["_target_"], *(t for v in node.values() if isinstance(v, Mapping) for t in _targets(v))]


def _cell(
    label: str, role: Any, series: str, model: Node, method: Node, settings: Settings, axes: Node, dense: str
) -> Cell:
    modules = tuple(fingerprint.home(target) for target in _targets(method))
    parts = {
        "model": model,
        "method": method,
        "batch": settings.batch,
        "weights": fingerprint.weights(model["path"], model["weights"]),
        "packages": fingerprint.packages(),
        "code": fingerprint.code(*modules),
        "machine": fingerprint.machine(model["device"]),
    }
    name = fingerprint.digest(parts)
    if _diagnosis(method):
        label, role = f"{label} (diagnosis)", "diagnosis"
    return Cell(name, label, role, series, model, method, axes, dense or name, _off(method), parts)


def _off(node: Node) -> bool:
    """Whether the settings are those that the class, or that of its cache, names as off."""
    found = light(node["_target_"])
    if isinstance(node.get("cache"), Mapping) and not hasattr(found, "off"):
        return _off(node["cache"])
    off = getattr(found, "off", None)
    return off is not None and all(node.get(key) == value for key, value in off.items())


def _diagnosis(node: Mapping[str, Any]) -> bool:
    """Whether the settings are those that the class, or that of a node in it, names as no method's."""
    named = getattr(light(node["_target_"]), "diagnosis", None)
    inner = [value for value in node.values() if isinstance(value, Mapping) and "_target_" in value]
    own = named is not None and all(node.get(key) == value for key, value in named.items())
    return own or any(_diagnosis(value) for value in inner)


def unique(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each identity."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def _steps(overrides: Sequence[str], point: Mapping[str, Any]) -> int:
    """The baseline's: those of the point's model, also where steps are swept."""
    model = {key: value for key, value in point.items() if key == "model"}
    return resolved(load(overrides, model), "model")["steps"]

"""From a config to cells: the dense baseline, every point of the grid, and step reduction beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from study import identity
from study.build import build, check
from study.checks import is_random, obtainable, unavailable
from study.config import choices, load, options, resolved, whole
from study.light import light
from study.override import NESTED
from study.prompts import Sample, read, samples
from study.refused import Refused
from study.settings import Settings, Suite, Sweep

# of the model's settings: one loading serves all values of these
GENERATION = ("height", "width", "steps", "guidance", "negative", "max_sequence_length")
Node = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One row of the table. id: see study/identity.py. role: what it is for. axes: the grid keys that tell it
    apart. dense: id of the baseline that it is compared with."""

    id: str
    label: str
    role: Literal["dense", "method", "steps"]
    model: Node
    method: Node
    axes: dict[str, Any]
    dense: str
    off: bool  # the settings switch the method off: it is meant to do what the baseline does
    identity: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Plan:
    settings: Settings
    config: Node
    name: str
    cells: list[Cell]
    samples: list[Sample]
    prompts: dict[str, Any]  # the set that the samples are of
    random_weights: bool
    unavailable: dict[str, str]  # metric -> why it will give no number

    @property
    def metrics(self) -> dict[str, Node]:
        return self.config["metric"]

    @property
    def folder(self) -> Path:
        return Path(self.settings.results) / self.name


def make(overrides: Sequence[str]) -> Plan:
    """The whole study, checked: nothing is loaded, and nothing that can be refused comes later."""
    config, picked = whole(load(overrides)), choices(overrides)
    nodes = {*picked, "metric"}
    settings: Settings = own(Settings, {key: v for key, v in config.items() if key not in nodes})
    sweep: Sweep = own(Sweep, config["sweep"], "sweep")
    own(Suite, config["eval"], "eval")
    _checked(config["model"], config["method"])
    for group in ("logger", "launcher"):
        check(config[group], group, "study")
    prompts = read(settings.prompts)
    drawn = samples(prompts.all[: settings.n], settings.seeds)
    cells = _unique(_cells(overrides, sweep, settings, picked))
    cached = [picked["method/cache"]] if picked["method"] == "caching" else []
    name = settings.name or "-".join([picked["method"], *cached, picked["model"], picked["sweep"]])
    models = [cell.model for cell in cells]
    obtainable(models)
    return Plan(
        settings,
        config,
        name,
        cells,
        drawn,
        prompts.origin,
        any(map(is_random, models)),
        unavailable(config),
    )


def own(kind: Any, node: Mapping[str, Any], where: str = "") -> Any:
    return build({"_target_": f"study.settings.{kind.__name__}"} | dict(node), where, "study")


def _cells(
    overrides: Sequence[str], sweep: Sweep, settings: Settings, picked: Mapping[str, str]
) -> Iterable[Cell]:
    grid = [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
    points = [point | extra for point in grid for extra in sweep.points or ({},)]
    base = resolved(load(overrides), "model")  # its steps are the baseline's, also where steps are swept
    models, methods = [], []
    for point in points:
        try:
            config = load(overrides, point)
            model, method = _checked(resolved(config, "model"), resolved(config, "method"))
        except Refused as error:
            raise Refused(f"{error}{_origin(point)}") from None
        steps = base["steps"] if "model" not in point else _steps(overrides, point)
        dense = _dense(model | {"steps": steps}, settings, picked, "model" in point)
        models.append(dense)
        cached = {} if "method" in point else {"cache": picked.get("method/cache")}
        label = _label(point.get("method", picked["method"]), cached | point)
        methods.append(_cell(label, "method", model, method, settings, point, dense.id))
    yield from models
    yield from methods
    for dense in _unique(models):
        for steps in sweep.curve_steps(dense.model["steps"]):
            method = {"_target_": "methods.Steps", "steps": steps, "solver": sweep.solver}
            axes = dense.axes | {"method.steps": steps}
            label = f"{dense.label.removeprefix('dense').strip()} {steps} steps".strip()
            yield _cell(label, "steps", *_checked(dense.model, method), settings, axes, dense.id)


def _dense(model: Node, settings: Settings, picked: Mapping[str, str], several: bool) -> Cell:
    method = {"_target_": "methods.Baseline", "steps": model["steps"]}
    label = f"dense {Path(str(model.get('path'))).name}" if several else "dense"
    return _cell(label, "dense", *_checked(model, method), settings, {}, "")


def _checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Both with every default filled in, so that saying a default and leaving it out are the same cell. A
    model's file may hold a method's settings on it under the method's name, for conf/method to take up: they
    are no model's own."""
    known = {*options("method"), *options("method/cache")}
    model = {key: v for key, v in model.items() if not (isinstance(v, Mapping) and key in known)}
    checkpoint, made = check(model, "model", "models"), check(method, "method", "methods")
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
    label: str, role: Any, model: Node, method: Node, settings: Settings, axes: Node, dense: str
) -> Cell:
    modules = tuple(identity.home(target) for target in _targets(method))
    parts = {
        "model": model,
        "method": method,
        "batch": settings.batch,
        "weights": identity.weights(model["path"], model["weights"]),
        "packages": identity.packages(),
        "code": identity.code(*modules),
        "machine": identity.machine(model["device"]),
    }
    name = identity.digest(parts)
    return Cell(name, label, role, model, method, axes, dense or name, _off(method), parts)


def _off(node: Node) -> bool:
    """Whether the settings are those that the class, or that of its cache, names as off."""
    found = light(node["_target_"])
    if isinstance(node.get("cache"), Mapping) and not hasattr(found, "off"):
        return _off(node["cache"])
    off = getattr(found, "off", None)
    return off is not None and all(node.get(key) == value for key, value in off.items())


def _unique(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each identity: a value listed twice is one cell, a baseline among the methods is the
    baseline."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def _steps(overrides: Sequence[str], point: Mapping[str, Any]) -> int:
    """A model's own number of steps, without the others of the point."""
    return resolved(load(overrides, {"model": point["model"]}), "model")["steps"]


def _label(method: str, point: Mapping[str, Any]) -> str:
    """ras ratio=0.5; the cache's name for caching; the model in front where several are swept."""
    shown = {NESTED.get(key, key): value for key, value in point.items()}
    cache = shown.pop("method/cache", None)
    cache = None if cache in (None, "None") or method.endswith("_caching") else cache
    swept = shown.pop("model", None)
    shown.pop("method", None)
    name = cache if cache and method == "caching" else f"{method} {cache}" if cache else method
    leaves = [key.split(".")[-1] for key in shown]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(shown, leaves, strict=True)}
    values = (f"{names[key]}={_short(value)}" for key, value in shown.items())
    return " ".join([*([swept] if swept else []), name, *values])


def _short(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _origin(point: Mapping[str, Any]) -> str:
    if not point:
        return ""
    where = ", ".join(f"{key}={value}" for key, value in point.items())
    return f"\n  at the grid point {where}; sweep=none runs the one method"

"""From a config to cells: the dense baseline, every point of the grid, and step reduction beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from study import identity
from study.build import build, check
from study.checks import is_random, obtainable, unavailable
from study.config import choices, load, options, resolved, whole
from study.prompts import Sample, read, samples
from study.refused import Refused
from study.settings import Settings, Sweep

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
    identity: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Plan:
    settings: Settings
    config: Node
    name: str
    cells: list[Cell]
    samples: list[Sample]
    random_weights: bool
    unavailable: dict[str, str]  # metric -> why it will give no number

    @property
    def metrics(self) -> dict[str, Node]:
        return self.config["eval"].get("metrics") or {}

    @property
    def folder(self) -> Path:
        return Path(self.settings.results) / self.name


def make(overrides: Sequence[str]) -> Plan:
    """The whole study, checked: nothing is loaded, and nothing that can be refused comes later."""
    config, picked = whole(load(overrides)), choices(overrides)
    settings: Settings = _own(Settings, {key: value for key, value in config.items() if key not in picked})
    sweep: Sweep = _own(Sweep, config["sweep"], "sweep")
    _checked(config["model"], config["method"])
    for group in ("logger", "launcher"):
        check(config[group], group, "study")
    drawn = samples(read(settings.prompts, settings.n), settings.seeds)
    cells = _unique(_cells(overrides, sweep, settings, picked))
    name = settings.name or "-".join(picked[g] for g in ("method", "model", "sweep"))
    models = [cell.model for cell in cells]
    obtainable(models)
    return Plan(
        settings, config, name, cells, drawn, any(map(is_random, models)), unavailable(config["eval"])
    )


def _own(kind: Any, node: Mapping[str, Any], where: str = "") -> Any:
    return build({"_target_": f"study.settings.{kind.__name__}"} | dict(node), where, "study")


def _cells(
    overrides: Sequence[str], sweep: Sweep, settings: Settings, picked: Mapping[str, str]
) -> Iterable[Cell]:
    points = [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
    base = resolved(load(overrides), "model")
    models, methods = [], []
    for point in points:
        try:
            config = load(overrides, point)
            model, method = _checked(resolved(config, "model"), resolved(config, "method"))
        except Refused as error:
            raise Refused(f"{error}{_origin(point)}") from None
        dense = _dense(model | {"steps": base["steps"]}, settings, picked, "model" in point)
        models.append(dense)
        label = _label(point.get("method", picked["method"]), point)
        methods.append(_cell(label, "method", model, method, settings, point, dense.id))
    yield from models
    yield from methods
    for dense in _unique(models):
        for steps in sweep.curve_steps(dense.model["steps"]):
            method = {"_target_": "methods.Steps", "steps": steps, "solver": sweep.solver}
            axes = dense.axes | {"method.steps": steps}
            yield _cell(f"{steps} steps", "steps", *_checked(dense.model, method), settings, axes, dense.id)


def _dense(model: Node, settings: Settings, picked: Mapping[str, str], several: bool) -> Cell:
    method = {"_target_": "methods.Baseline", "steps": model["steps"]}
    label = f"dense {Path(str(model.get('path'))).name}" if several else "dense"
    return _cell(label, "dense", *_checked(model, method), settings, {}, "")


def _checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Both with every default filled in, so that saying a default and leaving it out are the same cell. A
    model's file may hold a method's settings on it under the method's name, for conf/method to take up: they
    are no model's own."""
    hints = {key for key, value in model.items() if isinstance(value, Mapping) and key in options("method")}
    model = {key: value for key, value in model.items() if key not in hints}
    made = check(model, "model", "models"), check(method, "method", "methods")
    full = [{"_target_": node["_target_"]} | asdict(m) for node, m in zip((model, method), made, strict=True)]
    return full[0], full[1]


def _cell(
    label: str, role: Any, model: Node, method: Node, settings: Settings, axes: Node, dense: str
) -> Cell:
    module = identity.home(method["_target_"])
    parts = {
        "model": model,
        "method": method,
        "batch": settings.batch,
        "weights": identity.weights(model["path"], model["weights"]),
        "packages": identity.packages(),
        "code": identity.code(module),
        "machine": identity.machine(model["device"]),
    }
    name = identity.digest(parts)
    return Cell(name, label, role, model, method, axes, dense or name, parts)


def _unique(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each identity: a value listed twice is one cell, a baseline among the methods is the
    baseline."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def _label(method: str, point: Mapping[str, Any]) -> str:
    leaves = [key.split(".")[-1] for key in point]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(point, leaves, strict=True)}
    return " ".join([method, *(f"{names[k]}={v}" for k, v in point.items() if k != "method")])


def _origin(point: Mapping[str, Any]) -> str:
    if not point:
        return ""
    where = ", ".join(f"{key}={value}" for key, value in point.items())
    return f"\n  at the grid point {where}; sweep=none runs the one method"

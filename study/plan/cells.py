"""The cells of a study: the dense baselines, every point of the sweep, and the step-reduction curve."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from omegaconf import OmegaConf

from fovea.study.config.compose import Composed, load, resolved, set_key
from fovea.study.config.errors import Refused, as_text, nearest
from fovea.study.config.groups import options
from fovea.study.config.instantiate import instantiate, with_changes
from fovea.study.config.overrides import parse
from fovea.study.config.schema import Settings, Sweep
from fovea.study.plan import fingerprint
from fovea.study.plan.nodes import (
    Node,
    check_fits,
    checked,
    full_model,
    is_diagnosis,
    is_off,
    makes_another_image,
    unlike,
    with_defaults,
)
from fovea.study.plan.points import BaselineName, Names, Point, assignments, points

# model settings that do not require loading the model again
GENERATION = ("height", "width", "steps", "guidance", "negative", "max_sequence_length")
# settings of how the model is fitted into memory and run, with their defaults
FITTED = {"offload": "none", "compile": "none", "quantize": "none", "attention": "auto"}
# an interpolation that is resolved from the model's keys alone
MODEL_REFERENCE = re.compile(r"\$\{(oc\.select:)?model\.[\w.]+(,[^${}]*)?\}")


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    id: fingerprint, see fingerprint.py.
    role: purpose of the cell. A "diagnosis" shows what a method could achieve; it is not a usable method and
        is not ranked. A "sibling" is another model, which generates different images.
    series: name shared by cells that differ only in their settings.
    axes: the keys of the sweep that distinguish the cell.
    dense: id of the baseline that it is compared with.
    off: the settings disable the method, so it should reproduce the baseline.
    identity: everything that the id is made of.
    unlike_card: for a baseline, how its settings differ from the model card.
    another_image: similarity to the dense images is not a criterion.
    """

    id: str
    label: str
    role: Literal["dense", "method", "steps", "diagnosis", "sibling"]
    series: str
    model: Node
    method: Node
    axes: dict[str, Any]
    dense: str
    off: bool
    identity: dict[str, Any] = field(repr=False, compare=False)
    unlike_card: str = ""
    another_image: bool = False


@dataclass(frozen=True)
class Variant:
    """The files and model settings shared by several points, validated once.

    steps: of the dense run.
    made: the method before a point sets its keys; None if it needs them.
    fault: why the method cannot be made without them.
    """

    composed: Composed
    config: Any
    steps: int
    checkpoint: Any
    model: Node
    method: Node
    made: Any
    fault: str = ""

    def at(self, point: Point) -> tuple[Any, Node, dict[str, Any]]:
        """Return the method at a point, its node, and the values of the point's keys with every ${...}
        resolved."""
        if self.made is not None and not any(map(_needs_config, point.method.items())):
            keys = {key.removeprefix("method."): value for key, value in point.method.items()}
            return with_changes(self.made, keys, "method") if keys else self.made, self.method, point.values
        config, own = self.config, self.config.method
        config.method = own.copy()
        try:
            for key, value in point.method.items():
                set_key(config, key, value)
            node = resolved(config.method)
            filled = {key: _plain(OmegaConf.select(config, key)) for key in point.method}
        finally:
            config.method = own
        return instantiate(node, "method", "fovea.methods"), node, point.values | filled


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> list[Cell]:
    """Return the study's cells, each identity once: a value listed twice is one cell, and a baseline among
    the methods is the baseline. Raises Refused if two cells would have the same name."""
    found = unique(_cells(overrides, sweep, settings))
    named: dict[str, Cell] = {}
    for cell in found:
        other = named.setdefault(cell.label, cell)
        if other is not cell:
            both = " and ".join(assignments(c.axes) or c.role for c in (other, cell))
            raise Refused(f"two cells would be called {cell.label!r}: {both}; give each point its own label")
    return found


def unique(cells: Iterable[Cell]) -> list[Cell]:
    """Return the first cell of each identity."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def _cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    all_points = points(sweep)
    _reject_overridden(overrides, all_points)
    names, variants = Names(all_points), {}
    found, baselines, labelled = [], {}, {}
    for point in all_points:
        if point.variant not in variants:
            with names.at(point, point.files | point.model):
                variant = _variant(overrides, point)
                called = names.baseline(point, variant.composed.model)
                dense = _dense(variant, called, settings)
            variants[point.variant] = variant, dense
            baselines.setdefault(dense.id, (dense, called))
        variant, dense = variants[point.variant]
        with names.at(point, point.values, variant.fault):
            cell = _method(variant, point, names, settings, dense)
        other = labelled.setdefault(cell.id, cell.label) if point.label else cell.label
        if other != cell.label:
            raise Refused(f"sweep: {other} and {cell.label} are one cell, whose settings are the same")
        found.append(cell)
    yield from (dense for dense, _ in baselines.values())
    yield from found
    for dense, called in baselines.values():
        yield from _step_reduction(dense, called, sweep, settings)
        yield from _siblings(dense, called, settings)


def _reject_overridden(overrides: Sequence[str], all_points: Sequence[Point]) -> None:
    """Raise Refused if every point of the sweep overrides a setting of the command line."""
    given = parse(tuple(overrides))
    for key in (*given.groups, *given.keys):
        if all(key in point.values and key not in point.grid for point in all_points):
            raise Refused(
                f"{key}: every point of the sweep sets it already; use sweep=none or sweep.points=[...]"
            )


def _variant(overrides: Sequence[str], point: Point) -> Variant:
    composed = load(overrides, point.files)
    config = composed.config  # a copy that may be changed
    steps = resolved(config.model)["steps"]
    for key, value in point.model.items():
        set_key(config, key, value)
    model, checkpoint = full_model(resolved(config.model))
    method, made = resolved(config.method), None
    if not MODEL_REFERENCE.sub("", OmegaConf.to_yaml(config.method)).count("${"):
        try:
            made = instantiate(method, "method", "fovea.methods")
        except Refused as error:  # a point may still supply what is missing
            return Variant(composed, config, steps, checkpoint, model, method, None, str(error))
    return Variant(composed, config, steps, checkpoint, model, method, made)


def _needs_config(item: tuple[str, Any]) -> bool:
    """True if a value can only be resolved within the config, or is a node."""
    key, value = item
    return "${" in str(value) or "_target_" in key or "_target_" in str(value)


def _dense(variant: Variant, called: BaselineName, settings: Settings) -> Cell:
    model = variant.model | {"steps": variant.steps}
    node = {"_target_": "fovea.methods.Baseline", "steps": variant.steps}
    label = called.name("dense")
    made = _cell(label, "dense", label, *checked(model, node), settings, called.axes, "", False)
    return replace(made, unlike_card=unlike(resolved(variant.config.model).get("card"), made.model))


def _method(variant: Variant, point: Point, names: Names, settings: Settings, dense: Cell) -> Cell:
    made, node, values = variant.at(point)
    check_fits(made, variant.checkpoint)
    label, series = names.method(point, variant.composed, values)
    role = "method"
    if is_diagnosis(made):
        label, role = f"{label} (diagnosis)", "diagnosis"
    nodes, off = (variant.model, with_defaults(node, made)), is_off(made)
    cell = _cell(label, role, series, *nodes, settings, values, dense.id, off)
    return replace(cell, another_image=makes_another_image(made))


def _step_reduction(dense: Cell, called: BaselineName, sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    shared = {"_target_": "fovea.methods.Steps", "solver": sweep.solver, "schedule": sweep.schedule}
    schedule = f", schedule {sweep.schedule}" if full_model(dense.model)[1].schedule_depends_on_steps else ""
    for steps in sweep.curve_steps(dense.model["steps"]):
        node = shared | {"steps": steps}
        names = called.name(f"{steps} steps{schedule}"), "steps", called.name("step reduction")
        axes = called.axes | {"method.steps": steps}
        yield _cell(*names, *checked(dense.model, node), settings, axes, dense.id, False)


def _siblings(dense: Cell, called: BaselineName, settings: Settings) -> Iterator[Cell]:
    """Yield the rival models with their own settings, at the dense run's size, on its device, and fitted into
    memory and run as it is."""
    for name in settings.sibling:
        if name not in (known := options("model")):
            raise Refused(f"sibling={as_text(name)}: no such model; {nearest(name, known)}")
        own = resolved(load([f"model={name}"]).config.model)
        shared = ("height", "width", "weights", "dtype", "device", *FITTED)
        same = {key: dense.model[key] for key in shared}
        model = full_model(own | same)[0]
        if model["path"] == dense.model["path"]:
            raise Refused(
                f"sibling={name}: is the model that the methods run on; choose another one of conf/model"
            )
        node = {"_target_": "fovea.methods.Baseline", "steps": model["steps"]}
        names = called.name(f"{name} {model['steps']} steps"), "sibling", called.name(name)
        cell = _cell(*names, *checked(model, node), settings, called.axes, dense.id, False)
        yield replace(cell, another_image=True)


def _cell(
    label: str,
    role: Any,
    series: str,
    model: Node,
    method: Node,
    settings: Settings,
    axes: Node,
    dense: str,
    off: bool,
) -> Cell:
    parts = {
        "model": model,
        "method": method,
        "batch": settings.batch,
        "machine": fingerprint.machine(model["device"]),
        **fingerprint.made_of(model, method),
    }
    name = fingerprint.cell(parts)
    return Cell(name, label, role, series, model, method, axes, dense or name, off, parts)

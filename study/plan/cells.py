"""A study's cells: the dense baselines, every point of the sweep, and step reduction beside them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from omegaconf import OmegaConf

from fovea.study.config.compose import Composed, load, put, resolved
from fovea.study.config.errors import Refused
from fovea.study.config.groups import options
from fovea.study.config.instantiate import instantiate, varied
from fovea.study.config.overrides import parse
from fovea.study.config.schema import Settings, Sweep
from fovea.study.plan import fingerprint
from fovea.study.plan.points import Baseline, Names, Point, points, spelled

# of the model's settings: one loading serves all values of these
GENERATION = ("height", "width", "steps", "guidance", "negative", "max_sequence_length")
# and how it is made to fit and to run, with their defaults
FITTED = {"offload": "none", "compile": "none", "quantize": "none", "attention": "auto"}
OF_MODEL = re.compile(r"\$\{(oc\.select:)?model\.[\w.]+(,[^${}]*)?\}")  # filled in by the model's keys alone
Node = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One row of the table. id: see fingerprint.py. role: what it is for; a "diagnosis" says what a method
    could do and is none, and is not ranked; a "sibling" is another model, with images of its own. axes: the
    keys of the sweep that tell it apart. dense: id of the baseline that it is compared with. series: the name
    that it shares with cells of other settings. another_image: no likeness to the dense images judges it."""

    id: str
    label: str
    role: Literal["dense", "method", "steps", "diagnosis", "sibling"]
    series: str
    model: Node
    method: Node
    axes: dict[str, Any]
    dense: str
    off: bool  # the settings switch the method off: it is meant to do what the baseline does
    identity: dict[str, Any] = field(repr=False, compare=False)
    unlike_card: str = ""  # of a baseline: what its model card has otherwise
    another_image: bool = False


@dataclass(frozen=True)
class Variant:
    """The files and the model's settings that several points share, checked once. steps: of the dense run.
    made: the method before a point sets its keys; None where it cannot be had without."""

    composed: Composed
    config: Any
    steps: int
    checkpoint: Any
    model: Node
    method: Node
    made: Any
    fault: str = ""  # why it cannot

    def at(self, point: Point) -> tuple[Any, Node, dict[str, Any]]:
        """The method there, its node, and the values of the point's keys with every ${...} filled in."""
        if self.made is not None and not any(map(_is_filled_in, point.method.items())):
            keys = {key.removeprefix("method."): value for key, value in point.method.items()}
            return varied(self.made, keys, "method") if keys else self.made, self.method, point.values
        config = self.config.copy()
        for key, value in point.method.items():
            put(config, key, value)
        node = resolved(config.method)
        filled = {key: _plain(OmegaConf.select(config, key)) for key in point.method}
        return instantiate(node, "method", "fovea.methods"), node, point.values | filled


def _plain(value: Any) -> Any:
    """A value of the config as data, a list of its own too."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> list[Cell]:
    """Each identity once: a value listed twice is one cell, a baseline among the methods is the baseline.
    Refused where two would go by one name."""
    found = unique(_cells(overrides, sweep, settings))
    named: dict[str, Cell] = {}
    for cell in found:
        other = named.setdefault(cell.label, cell)
        if other is not cell:
            both = " and ".join(spelled(c.axes) or c.role for c in (other, cell))
            raise Refused(f"two cells would be called {cell.label!r}: {both}; give each point its own label")
    return found


def unique(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each identity."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Both with every default filled in, so that saying a default and leaving it out are the same cell."""
    known, checkpoint = full_model(model)
    made = instantiate(method, "method", "fovea.methods")
    _fits(made, checkpoint)
    return known, _full(method, made)


def _cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    every = points(sweep)
    _all_given_is_used(overrides, every)
    names, variants = Names(every), {}
    found, baselines = [], {}
    for point in every:
        if point.variant not in variants:
            with names.at(point, point.files | point.model):
                variant = _variant(overrides, point)
                called = names.baseline(point, variant.composed.model)
                dense = _dense(variant, called, settings)
            variants[point.variant] = variant, dense
            baselines.setdefault(dense.id, (dense, called))
        variant, dense = variants[point.variant]
        with names.at(point, point.values, variant.fault):
            found.append(_method(variant, point, names, settings, dense))
    yield from (dense for dense, _ in baselines.values())
    yield from found
    for dense, called in baselines.values():
        yield from _step_reduction(dense, called, sweep, settings)
        yield from _siblings(dense, called, settings)


def _all_given_is_used(overrides: Sequence[str], every: Sequence[Point]) -> None:
    """Refuses what the command line says of the model or the method and every point says otherwise."""
    given = parse(tuple(overrides))
    for key in (*given.groups, *given.keys):
        if all(key in point.values and key not in point.grid for point in every):
            raise Refused(f"{key}: every point of the sweep sets it; sweep=none, or sweep.points=[...]")


def _variant(overrides: Sequence[str], point: Point) -> Variant:
    composed = load(overrides, point.files)
    config = composed.config  # its own
    del config["sweep"]  # which may be long, and is copied with the rest for each point
    steps = resolved(config.model)["steps"]
    for key, value in point.model.items():
        put(config, key, value)
    model, checkpoint = full_model(resolved(config.model))
    method, made = resolved(config.method), None
    if not OF_MODEL.sub("", OmegaConf.to_yaml(config.method)).count("${"):
        try:
            made = instantiate(method, "method", "fovea.methods")
        except Refused as error:  # unless a point mends it
            return Variant(composed, config, steps, checkpoint, model, method, None, str(error))
    return Variant(composed, config, steps, checkpoint, model, method, made)


def _is_filled_in(item: tuple[str, Any]) -> bool:
    """Whether a value is known only with the config around it, or is a node of its own."""
    key, value = item
    return "${" in str(value) or "_target_" in key or "_target_" in str(value)


def full_model(node: Node) -> tuple[Node, Any]:
    """The full node, and its checkpoint. A model's file may hold a method's settings on it under the method's
    name, for conf/method to take up, and what its model card says: they are no model's own."""
    known = {*options("method"), *options("method/cache")}
    own = {key: v for key, v in node.items() if not (isinstance(v, Mapping) and key in known | {"card"})}
    checkpoint = instantiate(own, "model", "fovea.models")
    return _full(own, checkpoint), checkpoint


def _fits(made: Any, checkpoint: Any) -> None:
    """Refused where the method cannot work on the model's grid of tokens, or its cache on the blocks."""
    cache: Any = getattr(made, "cache", None)
    try:
        if hasattr(made, "check"):
            made.check(checkpoint.grid)
        if hasattr(cache, "fits") and (blocks := checkpoint.blocks) is not None:
            cache.fits(blocks)
    except ValueError as error:
        size = f"model.height={checkpoint.height}, model.width={checkpoint.width}"
        raise Refused(f"method with {size}: {error}") from None


def _full(node: Node, made: Any) -> Node:
    """The node with every field of its object, and of the objects in it."""
    values = {f.name: getattr(made, f.name) for f in fields(made)}
    inner = {
        name for name, value in values.items() if isinstance(node.get(name), Mapping) and is_dataclass(value)
    }
    full = {name: _full(node[name], value) if name in inner else value for name, value in values.items()}
    return {"_target_": node["_target_"]} | full


def _dense(variant: Variant, called: Baseline, settings: Settings) -> Cell:
    model = variant.model | {"steps": variant.steps}
    node = {"_target_": "fovea.methods.Baseline", "steps": variant.steps}
    label = called.name("dense")
    made = _cell(label, "dense", label, *checked(model, node), settings, called.axes, "", False)
    return replace(made, unlike_card=unlike(resolved(variant.config.model).get("card"), made.model))


def unlike(card: Node | None, model: Node) -> str:
    """What the settings have otherwise than the model card, in words; nothing where no card is known."""
    others = [key for key, value in (card or {}).items() if model[key] != value]
    return ", ".join(f"{key} {model[key]:g} for the card's {(card or {})[key]:g}" for key in others)


def _method(variant: Variant, point: Point, names: Names, settings: Settings, dense: Cell) -> Cell:
    made, node, values = variant.at(point)
    _fits(made, variant.checkpoint)
    label, series = names.method(point, variant.composed, values)
    role = "method"
    if is_diagnosis(made):
        label, role = f"{label} (diagnosis)", "diagnosis"
    nodes, off = (variant.model, _full(node, made)), is_off(made)
    cell = _cell(label, role, series, *nodes, settings, values, dense.id, off)
    return replace(cell, another_image=getattr(made, "another_image", False) and not off)


def _step_reduction(dense: Cell, called: Baseline, sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    shared = {"_target_": "fovea.methods.Steps", "solver": sweep.solver, "schedule": sweep.schedule}
    schedule = f", schedule {sweep.schedule}" if full_model(dense.model)[1].by_steps else ""
    for steps in sweep.curve_steps(dense.model["steps"]):
        node = shared | {"steps": steps}
        names = called.name(f"{steps} steps{schedule}"), "steps", called.name("step reduction")
        axes = called.axes | {"method.steps": steps}
        yield _cell(*names, *checked(dense.model, node), settings, axes, dense.id, False)


def _siblings(dense: Cell, called: Baseline, settings: Settings) -> Iterator[Cell]:
    """Rivals of the methods, as their own files have them; of the dense run's size, on the same device."""
    for name in settings.sibling:
        own = resolved(load([f"model={name}"]).config.model)
        same = {key: dense.model[key] for key in ("height", "width", "weights", "dtype", "device")}
        model = full_model(own | same)[0]
        if model["path"] == dense.model["path"]:
            raise Refused(f"sibling={name}: is the model that the methods run on; name another of conf/model")
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
    name = fingerprint.digest(parts)
    return Cell(name, label, role, series, model, method, axes, dense or name, off, parts)


def is_off(made: Any) -> bool:
    """Whether the settings are those that the class, or that of its cache, names as off."""
    off, inner = getattr(made, "off", None), getattr(made, "cache", None)
    if off is None:
        return inner is not None and is_off(inner)
    return all(getattr(made, key) == value for key, value in off.items())


def is_diagnosis(made: Any) -> bool:
    """Whether the settings are those that the class, or that of an object in it, names as no method's."""
    named = getattr(made, "diagnosis", None)
    own = named is not None and all(getattr(made, key) == value for key, value in named.items())
    inner = [getattr(made, f.name) for f in fields(made)]
    return own or any(is_diagnosis(value) for value in inner if is_dataclass(value))

"""A study's cells: the dense baselines, every point of the sweep, and step reduction beside them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import product
from math import prod
from typing import Any, Literal

from omegaconf import OmegaConf

from fovea.study.config.compose import SHORT, Composed, command, flat, load, may_vary, options, put, resolved
from fovea.study.config.errors import Refused, shown
from fovea.study.config.instantiate import instantiate, varied
from fovea.study.config.schema import Settings, Sweep
from fovea.study.plan import fingerprint

# of the model's settings: one loading serves all values of these
GENERATION = ("height", "width", "steps", "guidance", "negative", "max_sequence_length")
MOST_POINTS = 100_000  # of a sweep
OF_MODEL = re.compile(r"\$\{(oc\.select:)?model\.[\w.]+(,[^${}]*)?\}")  # filled in by the model's keys alone
Node = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One row of the table. id: see fingerprint.py. role: what it is for; a "diagnosis" says what a method
    could do and is none, and is not ranked. axes: the keys of the sweep that tell it apart. dense: id of the
    baseline that it is compared with. series: the name that it shares with cells of other settings."""

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


@dataclass(frozen=True)
class Point:
    """One point of the sweep. files: of groups. model, method: keys of theirs. label: what it is called, but
    for what `grid`, the keys of the product, adds."""

    files: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any]
    label: str | None
    grid: frozenset[str]

    @property
    def values(self) -> dict[str, Any]:
        return self.files | self.model | self.method


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
        filled = {key: OmegaConf.select(config, key) for key in point.method}
        return instantiate(node, "method", "fovea.methods"), node, point.values | filled


def cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> list[Cell]:
    """Each identity once: a value listed twice is one cell, a baseline among the methods is the baseline.
    Refused where two would go by one name."""
    found = unique(_cells(overrides, sweep, settings))
    named: dict[str, Cell] = {}
    for cell in found:
        other = named.setdefault(cell.label, cell)
        if other is not cell:
            both = " and ".join(_said(c.axes) or c.role for c in (other, cell))
            raise Refused(f"two cells would be called {cell.label!r}: {both}; give each point its own label")
    return found


def unique(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each identity."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.id, cell)
    return list(found.values())


def points(sweep: Sweep) -> list[Point]:
    """What each cell sets: the grid's product, times the cells written out. Refused where a key cannot differ
    between cells, or is in both."""
    grid, written = flat(sweep.grid), [flat(point) for point in sweep.points or ({},)]
    for key in {key: None for keys in (grid, *written) for key in keys}:
        if key != "label" and (why := may_vary(key)):
            raise Refused(f"sweep: {key}: {why}")
        if key in grid and any(key in point for point in written):
            raise Refused(f"sweep: {key} is set by both the grid and a point; leave it out of one")
    if (count := prod(map(len, grid.values())) * len(written)) > MOST_POINTS:
        sizes = ", ".join(f"{len(values):,} of {key}" for key, values in grid.items())
        raise Refused(f"sweep: {count:,} points, {sizes}; a study has at most {MOST_POINTS:,}")
    rows = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [_point(row, extra) for row in rows for extra in written]


def checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Both with every default filled in, so that saying a default and leaving it out are the same cell."""
    known, checkpoint = full_model(model)
    made = instantiate(method, "method", "fovea.methods")
    _fits(made, checkpoint)
    return known, _full(method, made)


def _cells(overrides: Sequence[str], sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    every = points(sweep)
    _all_said_is_used(overrides, every)
    names, variants = Names(every), {}
    found, baselines = [], {}
    for point in every:
        key = _text([point.files, point.model])
        if key not in variants:
            with names.at(point, point.files | point.model):
                variant = _variant(overrides, point)
                called = names.baseline(point, variant.composed.model)
                dense = _dense(variant, called, settings)
            variants[key] = variant, dense
            baselines.setdefault(dense.id, (dense, called))
        variant, dense = variants[key]
        with names.at(point, point.values, variant.fault):
            found.append(_method(variant, point, names, settings, dense))
    yield from (dense for dense, _ in baselines.values())
    yield from found
    for dense, called in baselines.values():
        yield from _step_reduction(dense, called, sweep, settings)


def _point(row: Node, extra: Node) -> Point:
    values = {SHORT.get(key, key): value for key, value in (row | extra).items()}
    label = _label(values.pop("label", None))
    files = {key: value for key, value in values.items() if "." not in key}
    model = {key: value for key, value in values.items() if key.startswith("model.")}
    method = {key: value for key, value in values.items() if key.startswith("method.")}
    return Point(files, model, method, label, frozenset(SHORT.get(key, key) for key in row))


def _label(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise Refused(f"sweep: label={shown(given)}: must be text")
    text = str(given).strip()
    if not text or not text.isprintable():
        raise Refused(f"sweep: label={shown(repr(given))}: must be text on one line")
    return text


def _all_said_is_used(overrides: Sequence[str], every: Sequence[Point]) -> None:
    """Refuses what the command line says of the model or the method and every point says otherwise."""
    said = command(tuple(overrides))
    for key in (*said.groups, *said.keys):
        if all(key in point.values and key not in point.grid for point in every):
            raise Refused(f"{key}: every point of the sweep sets it; sweep=none, or sweep.points=[...]")


def _variant(overrides: Sequence[str], point: Point) -> Variant:
    composed = load(overrides, point.files)
    config = composed.config.copy()
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
    name, for conf/method to take up: they are no model's own."""
    known = {*options("method"), *options("method/cache")}
    own = {key: v for key, v in node.items() if not (isinstance(v, Mapping) and key in known)}
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


def _dense(variant: Variant, called: "Baseline", settings: Settings) -> Cell:
    model = variant.model | {"steps": variant.steps}
    node = {"_target_": "fovea.methods.Baseline", "steps": variant.steps}
    label = called.name("dense")
    return _cell(label, "dense", label, *checked(model, node), settings, called.axes, "", False)


def _method(variant: Variant, point: Point, names: "Names", settings: Settings, dense: Cell) -> Cell:
    made, node, values = variant.at(point)
    _fits(made, variant.checkpoint)
    label, series = names.method(point, variant.composed, values)
    role = "method"
    if is_diagnosis(made):
        label, role = f"{label} (diagnosis)", "diagnosis"
    nodes = variant.model, _full(node, made)
    return _cell(label, role, series, *nodes, settings, values, dense.id, is_off(made))


def _step_reduction(dense: Cell, called: "Baseline", sweep: Sweep, settings: Settings) -> Iterator[Cell]:
    for steps in sweep.curve_steps(dense.model["steps"]):
        node = {"_target_": "fovea.methods.Steps", "steps": steps, "solver": sweep.solver}
        names = called.name(f"{steps} steps"), "steps", called.name("step reduction")
        axes = called.axes | {"method.steps": steps}
        yield _cell(*names, *checked(dense.model, node), settings, axes, dense.id, False)


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
        "weights": fingerprint.weights(model["path"], model["weights"]),
        "packages": fingerprint.packages(),
        "code": fingerprint.code(model, method),
        "machine": fingerprint.machine(model["device"]),
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


@dataclass(frozen=True)
class Baseline:
    """What a baseline and its step reduction are called. model: its name, where several are swept. keys: what
    is swept of it."""

    model: dict[str, str]
    keys: dict[str, Any]

    @property
    def axes(self) -> dict[str, Any]:
        return self.model | self.keys

    def name(self, kind: str) -> str:
        return " ".join([*self.model.values(), kind, *_settings(self.keys)])


class Names:
    """What cells are called: by the method and what the sweep sets, or as a point says."""

    def __init__(self, every: Sequence[Point]):
        taken = _taken(point.values for point in every)
        self.varying = {key for key, values in taken.items() if len(values) > 1}
        self.of_model: dict[Any, list[str]] = {}  # what tells the baselines of one model apart
        for name in {point.files.get("model") for point in every}:
            its = _taken(point.model for point in every if point.files.get("model") == name)
            # not its steps, of which the baseline has its own, nor what its file holds for a method
            own = [key for key in its if key != "model.steps" and key.count(".") == 1]
            self.of_model[name] = [key for key in own if len(its[key]) > 1]
        caches = _taken({str(p.files.get("method")): p.files["cache"]} for p in every if "cache" in p.files)
        self.many_caches = {method for method, names in caches.items() if len(names - {None}) > 1}

    def baseline(self, point: Point, model: str) -> "Baseline":
        return Baseline({"model": model} if "model" in point.files else {}, self._of_model(point))

    def method(self, point: Point, composed: Composed, values: Mapping[str, Any]) -> tuple[str, str]:
        """Its label, ras ratio=0.5, and series, ras."""
        front = [composed.model] if "model" in point.files else []
        name = [*front, self._of_method(point, composed)]
        keys = {key: value for key, value in values.items() if key not in point.files}
        series = " ".join([*name, *_settings(self._of_model(point))])
        if point.label is None:
            return " ".join([*name, *_settings(keys)]), series
        grid = {key: value for key, value in keys.items() if key in point.grid}
        chosen = [str(value) for key, value in point.files.items() if key in point.grid and key != "model"]
        return " ".join([*front, point.label, *chosen, *_settings(grid)]), series

    @contextmanager
    def at(self, point: Point, values: Mapping[str, Any], shared: str = "") -> Iterator[None]:
        """Says which point of the sweep a refusal is about, unless all share it."""
        try:
            yield
        except Refused as error:
            varying = {key: value for key, value in values.items() if key in self.varying}
            if not varying or str(error) == shared:
                raise
            called = f" ({point.label})" if point.label else ""
            place = f"at the grid point {_said(varying)}{called}; sweep=none runs the one method"
            raise Refused(f"{error}\n  {place}") from None

    def _of_model(self, point: Point) -> dict[str, Any]:
        keys = self.of_model[point.files.get("model")]
        return {key: value for key, value in point.model.items() if key in keys}

    def _of_method(self, point: Point, composed: Composed) -> str:
        """By its cache alone for plain caching."""
        method, cache = composed.picked["method"], composed.picked.get("cache")
        own = method.endswith("_caching") and str(point.files.get("method")) not in self.many_caches
        if cache in (None, "None") or own:
            return method
        return cache if method == "caching" else f"{method} {cache}"


def _taken(every: Iterable[Mapping[str, Any]]) -> dict[str, set[str | None]]:
    """The values that each key takes, as text; None where it is left out."""
    every = list(every)
    found: dict[str, set[str | None]] = {key: set() for values in every for key in values}
    for values in every:
        for key in found:
            found[key].add(_text(values[key]) if key in values else None)
    return found


def _settings(values: Mapping[str, Any]) -> list[str]:
    """`ratio=0.5`, or `method.ratio=0.5` where another key ends so."""
    leaves = [key.split(".")[-1] for key in values]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(values, leaves, strict=True)}
    return [f"{names[key]}={_short(value)}" for key, value in values.items()]


def _short(value: Any) -> str:
    text = "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split())


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

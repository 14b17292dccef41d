"""The points of the sweep: the settings and names of a study's cells."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from fovea.study.config.compose import Composed, flat
from fovea.study.config.errors import LONGEST, Refused, as_text
from fovea.study.config.groups import SHORT
from fovea.study.config.overrides import why_fixed
from fovea.study.config.schema import Sweep

MAX_POINTS = 100_000  # points of a sweep


@dataclass(frozen=True)
class Point:
    """One point of the sweep.

    files: files of groups.
    model, method: keys of the model and of the method.
    label: given name; None for a generated one.
    grid: the keys of the product, whose values are added to a given name.
    """

    files: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any]
    label: str | None
    grid: frozenset[str]

    @property
    def values(self) -> dict[str, Any]:
        return self.files | self.model | self.method

    @property
    def variant(self) -> str:
        """Equal for all points that differ only in the method's settings."""
        return canonical([self.files, self.model])


def points(sweep: Sweep) -> list[Point]:
    """Return the product of the grid, multiplied by the explicit points. Raises Refused if a key cannot
    differ between cells or is in both."""
    grid, written = flat(sweep.grid), [flat(point) for point in sweep.points or ({},)]
    for key, values in grid.items():
        _reject_duplicates(key, values)
    unlabelled = [{key: value for key, value in point.items() if key != "label"} for point in written]
    _reject_duplicates("points", unlabelled)
    for key in {key: None for keys in (grid, *written) for key in keys}:
        if key != "label" and (why := why_fixed(key)):
            raise Refused(f"sweep: {key}: {why}")
        if key in grid and any(key in point for point in written):
            raise Refused(f"sweep: {key} is set by both the grid and a point; leave it out of one")
    if (count := prod(map(len, grid.values())) * len(written)) > MAX_POINTS:
        sizes = ", ".join(f"{len(values):,} of {key}" for key, values in grid.items())
        raise Refused(f"sweep: {count:,} points, {sizes}; a study has at most {MAX_POINTS:,}")
    rows = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [_point(row, extra) for row in rows for extra in written]


def _reject_duplicates(name: str, values: Sequence[Any]) -> None:
    """Raise Refused if a value is listed twice, which would give the same cell."""
    seen: dict[str, Any] = {}
    for value in values:
        text = canonical(int(value) if isinstance(value, float) and value.is_integer() else value)
        if text in seen:
            raise Refused(f"sweep: {name}: {as_text(value)} is listed twice; leave one out")
        seen[text] = value


def _point(row: Mapping[str, Any], extra: Mapping[str, Any]) -> Point:
    values = {SHORT.get(key, key): value for key, value in {**row, **extra}.items()}
    label = _label(values.pop("label", None))
    files = {key: value for key, value in values.items() if "." not in key}
    model = {key: value for key, value in values.items() if key.startswith("model.")}
    method = {key: value for key, value in values.items() if key.startswith("method.")}
    return Point(files, model, method, label, frozenset(SHORT.get(key, key) for key in row))


def _label(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise Refused(f"sweep: label={as_text(given)}: must be text")
    text = str(given).strip()
    if not text or not text.isprintable() or len(text) > LONGEST:
        raise Refused(
            f"sweep: label={as_text(repr(given))}: must be text on one line, of at most {LONGEST} characters"
        )
    return text


def canonical(value: Any) -> str:
    """Return equal text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, default=str)


@dataclass(frozen=True)
class BaselineName:
    """The name of a baseline and of its step reduction.

    model: name of the model, if several are swept.
    keys: the swept keys of the model.
    """

    model: dict[str, str]
    keys: dict[str, Any]

    @property
    def axes(self) -> dict[str, Any]:
        return self.model | self.keys

    def name(self, kind: str) -> str:
        return " ".join([*self.model.values(), kind, *_settings(self.keys)])


class Names:
    """Names of cells: generated from the method and the swept settings, or given by a point."""

    def __init__(self, all_points: Sequence[Point]):
        taken = _values_by_key(point.values for point in all_points)
        self.varying = {key for key, values in taken.items() if len(values) > 1}
        self.of_model: dict[Any, list[str]] = {}  # keys that distinguish a model's baselines
        for name in {point.files.get("model") for point in all_points}:
            its = _values_by_key(point.model for point in all_points if point.files.get("model") == name)
            # without steps, which the baseline sets itself, and settings for a method in the model's file
            own = [key for key in its if key != "model.steps" and key.count(".") == 1]
            self.of_model[name] = [key for key in own if len(its[key]) > 1]
        caches = _values_by_key(
            {str(p.files.get("method")): p.files["cache"]} for p in all_points if "cache" in p.files
        )
        self.many_caches = {method for method, names in caches.items() if len(names - {None}) > 1}

    def baseline(self, point: Point, model: str) -> BaselineName:
        return BaselineName({"model": model} if "model" in point.files else {}, self._of_model(point))

    def method(self, point: Point, composed: Composed, values: Mapping[str, Any]) -> tuple[str, str]:
        """Return the label, `ras ratio=0.5`, and the series, `ras`."""
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
        """Add the point of the sweep to a refusal raised within, unless it is `shared`, the one that concerns
        all points."""
        try:
            yield
        except Refused as error:
            varying = {key: value for key, value in values.items() if key in self.varying}
            if not varying or str(error) == shared:
                raise
            called = f" ({point.label})" if point.label else ""
            place = f"at the grid point {assignments(varying)}{called}; sweep=none runs the one method"
            raise Refused(f"{error}\n  {place}") from None

    def _of_model(self, point: Point) -> dict[str, Any]:
        keys = self.of_model[point.files.get("model")]
        return {key: value for key, value in point.model.items() if key in keys}

    def _of_method(self, point: Point, composed: Composed) -> str:
        """Return the method's name with its cache; plain caching goes by the cache's name alone."""
        method, cache = composed.picked["method"], composed.picked.get("cache")
        own = method.endswith("_caching") and str(point.files.get("method")) not in self.many_caches
        if cache in (None, "None") or own:
            return method
        return cache if method == "caching" else f"{method} {cache}"


def _values_by_key(all_points: Iterable[Mapping[str, Any]]) -> dict[str, set[str | None]]:
    """Return the values that each key takes, as text; None if a point omits the key."""
    all_points = list(all_points)
    found: dict[str, set[str | None]] = {key: set() for values in all_points for key in values}
    for values in all_points:
        for key in found:
            found[key].add(canonical(values[key]) if key in values else None)
    return found


def _settings(values: Mapping[str, Any]) -> list[str]:
    """Return `ratio=0.5`, or `method.ratio=0.5` if another key has the same last part."""
    leaves = [key.split(".")[-1] for key in values]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(values, leaves, strict=True)}
    return [f"{names[key]}={_short(value)}" for key, value in values.items()]


def _short(value: Any) -> str:
    text = "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return as_text(" ".join(text.split()))


def assignments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={as_text(value)}" for key, value in values.items())

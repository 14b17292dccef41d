"""The points of the sweep: what each of a study's cells sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from fovea.study.config.compose import flat
from fovea.study.config.errors import LONGEST, Refused, shown
from fovea.study.config.groups import SHORT
from fovea.study.config.overrides import may_vary
from fovea.study.config.schema import Sweep

MOST = 100_000  # of a sweep


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

    @property
    def variant(self) -> str:
        """The same for all points that differ in the method's settings alone."""
        return canonical([self.files, self.model])


def points(sweep: Sweep) -> list[Point]:
    """What each cell sets: the grid's product, times the cells written out. Refused where a key cannot differ
    between cells, or is in both."""
    grid, written = flat(sweep.grid), [flat(point) for point in sweep.points or ({},)]
    for key, values in grid.items():
        _once(key, values)
    _once("points", [{key: value for key, value in point.items() if key != "label"} for point in written])
    for key in {key: None for keys in (grid, *written) for key in keys}:
        if key != "label" and (why := may_vary(key)):
            raise Refused(f"sweep: {key}: {why}")
        if key in grid and any(key in point for point in written):
            raise Refused(f"sweep: {key} is set by both the grid and a point; leave it out of one")
    if (count := prod(map(len, grid.values())) * len(written)) > MOST:
        sizes = ", ".join(f"{len(values):,} of {key}" for key, values in grid.items())
        raise Refused(f"sweep: {count:,} points, {sizes}; a study has at most {MOST:,}")
    rows = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [_point(row, extra) for row in rows for extra in written]


def _once(name: str, values: Sequence[Any]) -> None:
    """Refuses a value that is listed twice, which would be one cell."""
    seen: dict[str, Any] = {}
    for value in values:
        text = canonical(int(value) if isinstance(value, float) and value.is_integer() else value)
        if text in seen:
            raise Refused(f"sweep: {name}: {shown(value)} is there twice")
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
        raise Refused(f"sweep: label={shown(given)}: must be text")
    text = str(given).strip()
    if not text or not text.isprintable() or len(text) > LONGEST:
        raise Refused(
            f"sweep: label={shown(repr(given))}: must be text on one line, of at most {LONGEST} characters"
        )
    return text


def canonical(value: Any) -> str:
    """As text, the same for equal values, in whatever order their keys stand."""
    return json.dumps(value, sort_keys=True, default=str)

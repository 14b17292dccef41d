"""What cells are called."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fovea.study.config.compose import Composed
from fovea.study.config.errors import Refused, shown
from fovea.study.plan.points import Point, canonical


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

    def baseline(self, point: Point, model: str) -> Baseline:
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
            place = f"at the grid point {spelled(varying)}{called}; sweep=none runs the one method"
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
            found[key].add(canonical(values[key]) if key in values else None)
    return found


def _settings(values: Mapping[str, Any]) -> list[str]:
    """`ratio=0.5`, or `method.ratio=0.5` where another key ends so."""
    leaves = [key.split(".")[-1] for key in values]
    names = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(values, leaves, strict=True)}
    return [f"{names[key]}={_short(value)}" for key, value in values.items()]


def _short(value: Any) -> str:
    text = "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shown(" ".join(text.split()))


def spelled(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items())

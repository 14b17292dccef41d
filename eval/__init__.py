"""Measuring: what the images are worth and what they cost. Sees images, prompts and callables, never a model.

A metric is one file here with a frozen, closed dataclass: its fields are its config keys, and

    metric.scores      name of each score it gives -> `Facts`: title, which way is better, kind, bounds, ...
    metric.check()     raises `Unavailable` if weights or references are missing, before any image is made
    metric.needs()     what it has to know of each image: looked for in one pass for all metrics, and kept
    metric(samples)    -> one `Score` per name in `scores`

A number never travels without its n and its standard error, and what cannot be computed is never a number: a
metric raises `Unavailable` with the reason and the remedy (keys of its own as `metric.NAME.KEY=VALUE`), and
`@quality` around its `__call__` makes of that scores that say so. To add one: `eval/x.py`, its node
`conf/metric/x.yaml`, `tests/eval/test_x.py`, nothing else; where every image has a figure of its own,
`eval.per_image` does all but the figure.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from typing_extensions import Protocol, runtime_checkable

from fovea import lazy
from fovea.eval.facts import Better, Facts
from fovea.eval.statistics import Interval, Pool

if TYPE_CHECKING:
    from fovea.eval.samples import PerImage, Samples

__getattr__ = lazy.names(__name__, {"Samples": "samples"})  # torch: a table needs none


class Unavailable(Exception):
    """A score that cannot be had here: why, and what would help."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Score:
    """One figure with all that belongs to it.

    value, se: the figure and its standard error over prompts (None of a single one); both None where
    `unavailable` says why and `remedy` what would help. Only psnr can be infinite: when every image is
    identical to the dense one.
    per_image: one value per key in the order of the samples; pool: how they make the figure, `mean` or
    `decibel`. difference: to the figure of the dense images of the same keys, with its paired interval.
    facts: what was known of it beforehand. note: what a reader must be told beside it.
    """

    name: str
    facts: Facts
    value: float | None
    se: float | None
    n: int
    per_image: tuple[float, ...] | None = None
    pool: Pool = "mean"
    difference: Interval | None = None
    unavailable: str | None = None
    remedy: str | None = None
    note: str = ""

    def __post_init__(self):
        if (self.value is None) != (self.unavailable is not None):
            raise ValueError(f"{self.name}: either a value or the reason why there is none")
        if self.value is None or math.isfinite(self.value) or self.value == self.facts.reference:
            return
        what = "not a number" if math.isnan(self.value) else self.value
        raise ValueError(f"{self.name}: {what} is no score")

    @property
    def better(self) -> Better:
        return self.facts.better

    @property
    def heading(self) -> str:
        """Of a column."""
        return self.facts.heading(self.name)

    @property
    def title(self) -> str:
        """Of an axis: PSNR to dense (dB), Fréchet distance [emoji]."""
        _, bracket, mode = self.name.partition("[")
        return f"{self.facts.axis} {bracket}{mode}".strip()


@runtime_checkable
class Metric(Protocol):
    @property
    def scores(self) -> Mapping[str, Facts]: ...
    def check(self) -> None: ...
    def needs(self) -> "Sequence[PerImage]": ...
    def __call__(self, samples: "Samples") -> list[Score]: ...


def quality(call: "Callable[[Any, Samples], list[Score]]") -> "Callable[[Any, Samples], list[Score]]":
    """A metric's `__call__` that answers what it cannot compute, and random weights, with the reason."""

    @wraps(call)
    def scored(metric: Metric, samples: "Samples") -> list[Score]:
        try:
            if samples.random_weights:
                raise Unavailable("the model's weights are random", "judge a trained model; speed is valid")
            return call(metric, samples)
        except Unavailable as e:
            return [
                Score(name, facts, None, None, samples.n, unavailable=e.reason, remedy=e.remedy)
                for name, facts in metric.scores.items()
            ]

    return scored

"""Metrics of the quality and the cost of images. They see images, prompts and callables, never a model.

A metric is one file here with a frozen dataclass whose fields are its config keys:

    metric.scores      name of each score -> `Facts`: title, which direction is better, kind, bounds, ...
    metric.check()     raises `Unavailable` if weights or references are missing, before any image is made
    metric.needs()     what it needs to know about each image; computed in one pass for all metrics and stored
    metric(samples)    -> one `Score` per name in `scores`

A score always carries n and its standard error. What cannot be computed is never a number: the metric raises
`Unavailable` with the reason and the remedy (referring to its keys as `metric.NAME.KEY=VALUE`), which the
decorator `@quality` turns into scores without a value.

To add a metric, add `eval/x.py`, its node `conf/metric/x.yaml` and `tests/eval/test_x.py`. For a score that
is a mean over images, `eval.per_image` provides everything except the value per image.
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

__getattr__ = lazy.names(__name__, {"Samples": "samples"})  # imports torch, which tables do not need


class Unavailable(Exception):
    """A score cannot be computed here: the reason, and a remedy."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Score:
    """A score with everything needed to report it.

    value, se: the score and its standard error over prompts (None for a single prompt). Both are None if
        `unavailable` gives a reason, with a remedy in `remedy`. Only psnr can be infinite: if every image is
        identical to the dense one.
    per_image: one value per key, in the order of the samples.
    pool: how the values form the score, `mean` or `decibel`.
    difference: difference to the dense images of the same keys, with its paired interval.
    facts: static facts about the score.
    note: remark that must be shown with the score.
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
        """Column heading."""
        return self.facts.heading(self.name)

    @property
    def title(self) -> str:
        """Axis title, such as `PSNR to dense (dB)` or `Fréchet distance [emoji]`."""
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
    """Decorate a metric's `__call__`: `Unavailable` and random weights give scores without a value."""

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

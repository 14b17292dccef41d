"""Measuring: what the images are worth and what they cost. Sees images, prompts and callables, never a model.

A metric is one file here with a frozen, closed dataclass: its fields are its config keys, and

    metric.scores      name of each score it gives -> `Facts`: title, which way is better, kind, bounds, ...
    metric.check()     raises `Unavailable` if weights or references are missing, before any image is made
    metric(samples)    -> one `Score` per name in `scores`

A number never travels without its n and its standard error, and what cannot be computed is never a number: a
metric raises `Unavailable` with the reason and the remedy, and `@quality` around its `__call__` makes of that
scores that say so. To add one: `eval/x.py`, its node `conf/metric/x.yaml`, `tests/eval/test_x.py`, nothing
else; where every image has a figure of its own, `eval.judged` does all but the figure.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor

from fovea.eval.facts import Better, Facts
from fovea.eval.statistics import Interval, Pool


class Unavailable(Exception):
    """A score that cannot be had here: why, and what would help."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Samples:
    """Images of one method, with what they are to be judged by.

    images: uint8 (n, 3, H, W). keys: one per image, unique, such as (prompt, seed) written out. dense: the
    images that the unaccelerated model makes of the same keys, in the same order, or None (`against` pairs
    them). random_weights: the model was never trained, so that no quality metric may give its images a
    number.
    """

    images: Tensor
    prompts: Sequence[str]
    keys: Sequence[str]
    dense: Tensor | None = None
    random_weights: bool = False

    def __post_init__(self):
        for name, x in (("images", self.images), ("dense", self.dense)):
            if x is not None and (x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3 or not len(x)):
                raise ValueError(f"{name} must be uint8 (n, 3, H, W), not {x.dtype} {tuple(x.shape)}")
        if self.dense is not None and self.dense.shape != self.images.shape:
            raise ValueError(f"dense {tuple(self.dense.shape)} does not pair with {tuple(self.images.shape)}")
        counts = len(self.images), len(self.prompts), len(self.keys), len(set(self.keys))
        if len(set(counts)) > 1:
            raise ValueError("{} images, {} prompts and {} keys, {} distinct, do not pair".format(*counts))

    @property
    def n(self) -> int:
        return len(self.images)

    def against(self, dense: "Samples") -> "Samples":
        """These samples beside the images that `dense` has under the same keys, in whatever order."""
        place = {key: i for i, key in enumerate(dense.keys)}
        if missing := [key for key in self.keys if key not in place]:
            raise ValueError(f"no dense image of {len(missing)} of {self.n} keys, such as {missing[0]!r}")
        images = dense.images[[place[key] for key in self.keys]]
        random_weights = self.random_weights or dense.random_weights
        return Samples(self.images, self.prompts, self.keys, images, random_weights)


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
        if self.value is not None and math.isnan(self.value):
            raise ValueError(f"{self.name}: not a number is no score")

    @property
    def better(self) -> Better:
        return self.facts.better

    @property
    def title(self) -> str:
        """Of an axis: PSNR to dense (dB), Fréchet distance [emoji]."""
        _, bracket, mode = self.name.partition("[")
        return f"{self.facts.axis} {bracket}{mode}".strip()


class Metric(Protocol):
    @property
    def scores(self) -> Mapping[str, Facts]: ...
    def check(self) -> None: ...
    def __call__(self, samples: Samples) -> list[Score]: ...


def quality(call: Callable[[Any, Samples], list[Score]]) -> Callable[[Any, Samples], list[Score]]:
    """A metric's `__call__` that answers what it cannot compute, and random weights, with the reason."""

    @wraps(call)
    def scored(metric: Metric, samples: Samples) -> list[Score]:
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


def require_equal_n(scores: Sequence[Score]) -> None:
    """ValueError if scores whose expectation depends on n, as a Fréchet distance's does, differ in n."""
    sizes: dict[str, set[int]] = {}
    for score in scores:
        if score.facts.biased and score.value is not None:
            sizes.setdefault(score.name, set()).add(score.n)
    for name, ns in sizes.items():
        if len(ns) > 1:
            raise ValueError(
                f"{name} at n = {sorted(ns)} does not compare: score the same keys for every method"
            )

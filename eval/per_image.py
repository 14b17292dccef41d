"""Base classes of metrics with a value per image, whose mean is the score.

`Judged` metrics look at each image by itself; `Compared` ones compare it with the dense image of its key.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fovea.eval import Samples, Score, Unavailable, quality
from fovea.eval.facts import Facts
from fovea.eval.samples import Batch, PerImage
from fovea.eval.statistics import paired_difference, pooled, standard_error


class Single:
    """A metric with a single score, `name`."""

    facts: ClassVar[Facts]
    name: Any

    @property
    def paired(self) -> bool:
        return False

    @property
    def scores(self) -> dict[str, Facts]:
        return {self.name: self.facts}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything an image's value depends on: the fields; metrics with weights override this."""
        return {"fields": repr(self)}

    @property
    def module(self) -> str:
        return type(self).__module__

    def check(self) -> None:
        """No weights are needed; metrics with weights override this."""

    def needs(self) -> Sequence[PerImage]:
        return [self]

    def figures(self, batch: Batch) -> Sequence[float]:
        """Return the value of each image of a batch. Raises Unavailable."""
        raise TypeError(f"{type(self).__name__} has no figures of images")

    def compute(self, batch: Batch) -> dict[str, Tensor]:
        return {"figure": torch.tensor(self.figures(batch), dtype=torch.float64)}

    def each(self, samples: Samples) -> tuple[float, ...]:
        return tuple(samples.rows(self)["figure"].tensor().tolist())


def mean_score(
    name: str,
    facts: Facts,
    each: Sequence[float],
    prompts: Sequence[str],
    dense: Sequence[float] | None = None,
    seed: int = 0,
) -> Score:
    """Return the mean of the values of images, (n,).

    dense: those of the dense images of the same keys, for the difference, by paired bootstrap.
    """
    difference, worse = None, "low" if facts.better == "higher" else "high"
    if dense is not None:
        difference = paired_difference(each, dense, seed=seed, groups=prompts, worse=worse)
    value, se = float(pooled(each)), standard_error(each, groups=prompts)
    return Score(name, facts, value, se, len(each), tuple(each), difference=difference)


class OfBackbone(Single):
    """A metric on an image's features in a network, `backbone`."""

    backbone: Any

    def check(self) -> None:
        self.backbone.weights()

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.backbone.load().identity


class Judged(Single):
    """A metric of single images.

    difference: to the values of the dense images of the same keys, by paired bootstrap.
    """

    seed: Any

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        dense = None if samples.baseline is None else self.each(samples.baseline)
        return [mean_score(self.name, self.facts, self.each(samples), samples.prompts, dense, self.seed)]


class Compared(Single):
    """A metric that needs the dense images."""

    @property
    def paired(self) -> bool:
        return True

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        needs_dense(samples)
        return [mean_score(self.name, self.facts, self.each(samples), samples.prompts)]


def needs_dense(samples: Samples) -> None:
    """Raise Unavailable if there are no dense images."""
    if samples.dense is None:
        raise Unavailable("there are no dense images to compare with", "run the baseline on the same keys")

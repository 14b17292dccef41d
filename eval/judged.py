"""What metrics share that have a figure of every image, whose mean is the score.

They judge each image by itself (`Judged`), or compare it with the dense one of its key (`Compared`).
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fovea.eval import Samples, Score, Unavailable, quality
from fovea.eval.facts import Facts
from fovea.eval.statistics import paired_difference, pooled, standard_error

Judge = Callable[[Tensor], Sequence[float]]  # images, uint8 (n, 3, H, W), to n figures


class Single:
    """A metric of one score, `name`."""

    facts: ClassVar[Facts]
    name: Any

    @property
    def scores(self) -> dict[str, Facts]:
        return {self.name: self.facts}

    def mean(self, each: Sequence[float], samples: Samples, **more: Any) -> Score:
        """Of one figure per image, in the order of the samples."""
        value, se = float(pooled(each)), standard_error(each, groups=samples.prompts)
        return Score(self.name, self.facts, value, se, len(each), tuple(each), **more)


class Judged(Single):
    """difference: to what is said of the dense images of the same keys, bootstrapped in pairs."""

    seed: Any

    def judge(self, samples: Samples) -> Judge:
        """Of images that come in the order of the samples: theirs, or the dense ones. Raises Unavailable."""
        raise TypeError(f"{type(self).__name__} does not say how it judges")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        judge = self.judge(samples)
        each, difference = judge(samples.images), None
        if samples.dense is not None:
            dense = each if torch.equal(samples.images, samples.dense) else judge(samples.dense)
            difference = paired_difference(each, dense, seed=self.seed, groups=samples.prompts)
        return [self.mean(each, samples, difference=difference)]


class Compared(Single):
    """It needs the dense images."""

    def compare(self, images: Tensor, dense: Tensor) -> Sequence[float]:
        """From uint8 (n, 3, H, W) each to n figures. Raises Unavailable."""
        raise TypeError(f"{type(self).__name__} does not say how it compares")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        return [self.mean(self.compare(samples.images, beside(samples)), samples)]


def beside(samples: Samples) -> Tensor:
    """The dense images. Raises Unavailable."""
    if samples.dense is None:
        raise Unavailable("there are no dense images to compare with", "run the baseline on the same keys")
    return samples.dense

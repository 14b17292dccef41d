"""The score of a metric that judges each image by itself: a mean, and its difference to the dense images'."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eval import Better, Samples, Score
from eval.statistics import paired_difference, pooled, standard_error


def mean_score(
    name: str, better: Better, judge: Callable[[Tensor], Sequence[float]], samples: Samples, seed: int = 0
) -> Score:
    """The mean of judge(images), uint8 (n, 3, H, W) -> n values, one per image in the order of the samples.

    difference: to what `judge` says of the dense images of the same keys, bootstrapped in pairs.
    """
    each, difference = tuple(judge(samples.images)), None
    if samples.dense is not None and samples.n > 1:
        dense = each if torch.equal(samples.images, samples.dense) else judge(samples.dense)
        difference = paired_difference(each, dense, seed=seed)
    value, se = float(pooled(each)), standard_error(each)
    return Score(name, better, value, se, samples.n, each, difference=difference)

"""The contract of every metric, checked on synthetic images (run by `eval.selftest`).

A metric returns the promised scores, finite and with n and a standard error, within their bounds. It rejects
float32 images. Identical images get the best value, or no difference. Exchanging images and dense images
swaps or negates the result. The order of the images has no effect, nor, for per-image scores, has their
number. Where a value is known analytically, the metric returns it.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from fovea.eval import Metric, Samples, Score, Unavailable
from fovea.eval.facts import FLAT

SIDE, N = 192, 4  # NIQE needs 192 pixels


class Failed(AssertionError):
    """The metric violates its contract."""


@lru_cache(maxsize=1)
def pictures() -> tuple[Tensor, Tensor]:
    """Return images and dense images, uint8 (N, 3, SIDE, SIDE): soft colour blobs with grain, seeded."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(2, N, 3, 6, 6, generator=generator)
    soft = torch.nn.functional.interpolate(small.flatten(0, 1), SIDE, mode="bicubic").view(
        2, N, 3, SIDE, SIDE
    )
    grain = torch.randn(2, N, 3, SIDE, SIDE, generator=generator)
    dense = 255 * soft[0] + 6 * grain[0]
    images = 0.8 * dense + 0.2 * 255 * soft[1] + 4 * grain[1]
    made = torch.stack([images, dense]).round().clamp(0, 255).to(torch.uint8)
    return made[0], made[1]


def samples(images: Tensor, dense: Tensor | None) -> Samples:
    names = [f"a picture, number {i}" for i in range(len(images))]
    return Samples(images, names, names, dense)


def scored(metric: Metric, made: Samples) -> dict[str, Score]:
    """Return scores by name. Raises Unavailable if there is no value, Failed if the contract is violated."""
    found = {score.name: score for score in metric(made)}
    if {name: score.facts for name, score in found.items()} != dict(metric.scores):
        raise Failed(f"gives {list(found)}, not the promised {list(metric.scores)}")
    for name, score in found.items():
        if score.value is None:
            raise Unavailable(score.unavailable or "no value", score.remedy or "see the metric's file")
        if score.n != made.n or (score.per_image is not None and len(score.per_image) != made.n):
            raise Failed(f"{name}: n = {score.n} of {made.n} images")
        if len(set(made.prompts)) > 1 and not (score.se is not None and score.se >= 0):
            raise Failed(f"{name}: a standard error of {score.se}")
    return found


def check(metric: Metric) -> None:
    """Check the contract. Raises Failed or Unavailable."""
    metric.check()
    a, b = pictures()
    found = scored(metric, samples(a, b))
    for test in (in_range, exchanged, identical, reordered, fewer, flat):
        test(metric, found)
    try:
        Samples(a.float() / 255, ["x"] * N, [str(i) for i in range(N)])
    except ValueError:
        return
    raise Failed("float images are taken for uint8")


def close(a: float, b: float) -> bool:
    """True if equal up to float32 summation error of a different batch."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4)


def in_range(metric: Metric, found: Mapping[str, Score]) -> None:
    for name, score in found.items():
        low, high = score.facts.low, score.facts.high
        slack = 1e-6 * max(1.0, abs(score.value or 0))
        if score.value is None or not low - slack <= score.value <= high + slack:
            raise Failed(f"{name} = {score.value}, outside of {low} to {high}")


def exchanged(metric: Metric, found: Mapping[str, Score]) -> None:
    """A likeness is symmetric; a difference to dense changes its sign."""
    a, b = pictures()
    for name, other in scored(metric, samples(b, a)).items():
        mine = found[name]
        if mine.difference is not None and other.difference is not None:
            if not close(mine.difference.value, -other.difference.value):
                raise Failed(f"{name}: {mine.difference.value} better than dense, and dense by as much too")
        elif not close(mine.value or 0.0, other.value or 0.0):
            raise Failed(f"{name} = {mine.value}, and {other.value} with images and dense exchanged")


def identical(metric: Metric, found: Mapping[str, Score]) -> None:
    a, _ = pictures()
    for name, score in scored(metric, samples(a, a.clone())).items():
        if score.difference is not None:
            if score.difference.value != 0:
                raise Failed(f"{name}: a difference of {score.difference.value} between identical images")
            continue
        best, sign = score.facts.reference, 1 if score.better == "higher" else -1
        if best is not None and not close(score.value or 0.0, best):
            raise Failed(f"{name} = {score.value} for identical images, not {best}")
        if sign * (score.value or 0.0) < sign * (found[name].value or 0.0):
            raise Failed(f"{name} is worse for identical images than for others")


def reordered(metric: Metric, found: Mapping[str, Score]) -> None:
    a, b = pictures()
    names = [f"a picture, number {i}" for i in reversed(range(N))]
    for name, score in scored(metric, Samples(a.flip(0), names, names, b.flip(0))).items():
        mine = found[name]
        pairs = [
            (mine.value, score.value),
            *zip(mine.per_image or (), (score.per_image or ())[::-1], strict=True),
        ]
        if not all(close(x or 0.0, y or 0.0) for x, y in pairs):
            raise Failed(f"{name} depends on the order of the images: {pairs}")


def fewer(metric: Metric, found: Mapping[str, Score]) -> None:
    """The score of an image does not depend on the other images. Distances between sets are exempt."""
    if any(score.facts.kind == "distance" for score in found.values()):
        return
    a, b = pictures()
    for name, score in scored(metric, samples(a[:1], b[:1])).items():
        whole = found[name].per_image
        if whole is not None and score.per_image is not None and not close(whole[0], score.per_image[0]):
            raise Failed(f"{name}: an image has {whole[0]} among {N} and {score.per_image[0]} alone")


def flat(metric: Metric, found: Mapping[str, Score]) -> None:
    values = {name: x for name, facts in metric.scores.items() if (x := facts.flat) is not None}
    if not values:
        return
    grey, brighter = (torch.full((2, 3, 32, 32), level, dtype=torch.uint8) for level in FLAT)
    for name, score in scored(metric, samples(grey, brighter)).items():
        if name in values and not close(score.value or 0.0, values[name]):
            raise Failed(f"{name} = {score.value} for grey images 16 levels apart, not {values[name]}")

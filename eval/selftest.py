"""Does a metric do what it promises? Every metric of conf/metric, on images that tell.

    python -m eval.selftest            all of conf/metric, exit code 1 if one fails
    python -m eval.selftest psnr fid   these
    python -m eval.selftest -          nodes, {name: {_target_: ...}}, as JSON on stdin; answers in JSON

Asked of each: the promised scores, finite, with n and error; within range; float32 images refused; the best
figure, or no difference, for identical images; images and dense images exchanged; the order of images, and
for scores of single images their number, without effect; a known value where there is one. A metric that
fails gives no numbers in a study. One without its weights is unavailable, which is no failure.
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from eval import Better, Metric, Samples, Score, Unavailable, quality

CONF = Path(__file__).resolve().parent.parent / "conf" / "metric"
SIDE, N = 192, 4  # NIQE needs 192 pixels


class Known(NamedTuple):
    """low, high: the range. best: of identical images, None where that says nothing. flat: of a grey image
    and one 16 levels brighter."""

    low: float
    high: float
    best: float | None = None
    flat: float | None = None


FLAT = 112, 128
_A, _B, _C1 = *FLAT, (0.01 * 255) ** 2
KNOWN = {  # by the score's name without its bracket; of a score that is not here no value is known
    "psnr": Known(0, math.inf, math.inf, 20 * math.log10(255 / 16)),
    "identical": Known(0, 1, 1.0, 0.0),
    "ssim": Known(-1, 1, 1.0, (2 * _A * _B + _C1) / (_A**2 + _B**2 + _C1)),
    "lpips": Known(0, math.inf, 0.0),
    "similarity": Known(-1, 1, 1.0),
    "clip_score": Known(0, 100),
    "clip_iqa": Known(0, 1),
    "hpsv2": Known(-100, 100),
    "niqe": Known(0, math.inf),
    "fid": Known(0, math.inf),
    "sfid": Known(0, math.inf),
    "fd": Known(0, math.inf),
}


class Failed(AssertionError):
    """What a metric did that it must not do."""


@lru_cache(maxsize=1)
def pictures() -> tuple[Tensor, Tensor]:
    """Images and dense ones, uint8 (N, 3, SIDE, SIDE): soft blobs of colour with grain, seeded."""
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
    """By name. Raises Unavailable if the metric cannot tell here, and Failed if it breaks its promises."""
    found = {score.name: score for score in metric(made)}
    if {name: score.better for name, score in found.items()} != dict(metric.better):
        raise Failed(f"gives {list(found)}, not the promised {list(metric.better)}")
    for name, score in found.items():
        if score.value is None:
            raise Unavailable(score.unavailable or "no value", score.remedy or "see the metric's file")
        if score.n != made.n or (score.per_image is not None and len(score.per_image) != made.n):
            raise Failed(f"{name}: n = {score.n} of {made.n} images")
        if score.se is not None and not score.se >= 0:
            raise Failed(f"{name}: a standard error of {score.se}")
    return found


def check(metric: Metric) -> None:
    """Raises Failed, or Unavailable."""
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
    """To what the sums of another batch may differ by, in float32."""
    return a == b or abs(a - b) <= 1e-4 * max(1.0, abs(a), abs(b))


def known(name: str) -> Known:
    return KNOWN.get(name.partition("[")[0], Known(-math.inf, math.inf))


def in_range(metric: Metric, found: Mapping[str, Score]) -> None:
    for name, score in found.items():
        low, high = known(name)[:2]
        slack = 1e-6 * max(1.0, abs(score.value or 0))
        if score.value is None or not low - slack <= score.value <= high + slack:
            raise Failed(f"{name} = {score.value}, outside of {low} to {high}")


def exchanged(metric: Metric, found: Mapping[str, Score]) -> None:
    """A likeness is the same the other way round; a difference to dense changes its sign."""
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
        best, sign = known(name).best, 1 if score.better == "higher" else -1
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
    """An image's own score does not depend on those beside it. A distance of sets has no such score."""
    if hasattr(metric, "reference"):
        return
    a, b = pictures()
    for name, score in scored(metric, samples(a[:1], b[:1])).items():
        whole = found[name].per_image
        if whole is not None and score.per_image is not None and not close(whole[0], score.per_image[0]):
            raise Failed(f"{name}: an image has {whole[0]} among {N} and {score.per_image[0]} alone")


def flat(metric: Metric, found: Mapping[str, Score]) -> None:
    values = {name: value for name in found if (value := known(name).flat) is not None}
    if not values:
        return
    grey, brighter = (torch.full((2, 3, 32, 32), level, dtype=torch.uint8) for level in FLAT)
    for name, score in scored(metric, samples(grey, brighter)).items():
        if name in values and not close(score.value or 0.0, values[name]):
            raise Failed(f"{name} = {score.value} for grey images 16 levels apart, not {values[name]}")


def verdict(metric: Metric) -> tuple[str, str]:
    """`passed`, `unavailable` or `failed`, and why. Whatever else a metric raises is a failure."""
    try:
        with with_reference(metric) as ready:
            check(ready)
    except Unavailable as why:
        return "unavailable", str(why)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
    return "passed", ""


@contextmanager
def with_reference(metric: Any) -> Iterator[Metric]:
    """A metric that is judged against reference images is given the dense ones, in a folder for the while."""
    reference: Any = getattr(metric, "reference", None)
    if not hasattr(reference, "path"):
        yield metric
        return
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(pictures()[1]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(Path(folder) / f"{i}.png")
        given: Any = replace(reference, path=Path(folder), count=None, size="any", cache=None)
        yield replace(metric, reference=given)


@lru_cache(maxsize=64)
def fault(metric: Any) -> str | None:
    """Why a metric must not be trusted here, or None; asked once of each in a process."""
    outcome, why = verdict(metric)
    return why if outcome == "failed" else None


def trusted(metric: Any) -> Any:
    """The metric, or one that gives its scores as unavailable because it fails."""
    why = fault(metric)
    return metric if why is None else Untrusted(metric, why)


@dataclass(frozen=True)
class Untrusted:
    metric: Any
    why: str

    @property
    def better(self) -> Mapping[str, Better]:
        return self.metric.better

    def check(self) -> None:
        raise Unavailable(f"it fails its self-test ({self.why})", "see `python -m eval.selftest`")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        self.check()
        return []


def nodes(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from omegaconf import OmegaConf

    for name in names or sorted(path.stem for path in CONF.glob("*.yaml")):
        yield name, OmegaConf.load(CONF / f"{name}.yaml")


def main(arguments: Sequence[str], say: Callable[[str], Any] = print) -> int:
    from hydra.utils import instantiate

    as_json = list(arguments) == ["-"]
    asked = json.load(sys.stdin).items() if as_json else nodes(arguments)
    found = {}
    for name, node in asked:
        found[name] = outcome, why = verdict(instantiate(node))
        if not as_json:
            say(f"{name:24} {outcome}{': ' if why else ''}{why}")
    if as_json:
        say(json.dumps(found))
    return int(any(outcome == "failed" for outcome, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

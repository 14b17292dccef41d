"""Does a metric do what it promises (`eval.contract`)? Every metric of conf/metric is asked.

    python -m fovea.eval.selftest            all of conf/metric, exit code 1 if one fails
    python -m fovea.eval.selftest psnr fid   these
    python -m fovea.eval.selftest -          nodes, {name: {_target_: ...}}, as JSON on stdin; answers in JSON

A metric that fails gives no numbers in a study. One without its weights is unavailable, which is no failure.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from fovea.eval import Metric, Samples, Score, Unavailable, quality
from fovea.eval.caches import remembered
from fovea.eval.contract import Failed, check, pictures
from fovea.eval.facts import Facts
from fovea.eval.samples import PerImage, computed_by, signature

CONF = Path(__file__).resolve().parent.parent / "conf" / "metric"


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
    """Why a metric must not be trusted here, or None. A metric that passed is not asked again on this machine
    while its settings, its code, its weights and torch are the same."""

    def passed() -> bool:
        outcome, why = verdict(metric)
        if outcome != "passed":
            raise Failed(why) if outcome == "failed" else Unavailable(why, "")
        return True

    try:
        of = [
            "self-test",
            repr(metric),
            *map(signature, metric.needs()),
            computed_by(type(metric).__module__),
        ]
    except Exception:  # whatever it is, the self-test meets it, too
        of = None
    try:
        _ = passed() if of is None else remembered(of, passed)
    except Unavailable:  # which is no failure
        return None
    except Failed as failure:
        return str(failure)
    return None


def promised(metric: Any) -> Mapping[str, Facts]:
    """The scores that it says it gives; one of its class's name, where it cannot say."""
    try:
        return dict(metric.scores)
    except Exception:  # of whatever kind: what it gives is unavailable, and this is what that is said of
        name = type(metric).__name__
        return {name.lower(): Facts(name, "higher", "preference")}


def scored(metric: Any, samples: Samples) -> list[Score]:
    """Its scores; without a number where it cannot tell here, where its check says so, or where it raises."""
    try:
        if not samples.random_weights:
            metric.check()
        return metric(samples)
    except Unavailable as e:
        reason, remedy = e.reason, e.remedy
    except Exception as e:  # whatever stops one metric must not cost the others, nor the report
        reason = f"it failed over these images ({type(e).__name__}: {e})"
        remedy = "`rescore=` scores the stored images again"
    return [
        Score(name, facts, None, None, samples.n, unavailable=reason, remedy=remedy)
        for name, facts in promised(metric).items()
    ]


def needed(metrics: Iterable[Any]) -> list[PerImage]:
    """What they need to know of each image, of those that can be had; `scored` says why the others cannot."""
    found: dict[str, PerImage] = {}
    for metric in metrics:
        with suppress(Exception):
            metric.check()
            found |= {signature(what): what for what in metric.needs()}
    return [*found.values()]


def trusted(metric: Any) -> Any:
    """The metric, or one that gives its scores as unavailable because it fails."""
    why = fault(metric)
    return metric if why is None else Untrusted(metric, why)


@dataclass(frozen=True)
class Untrusted:
    metric: Any
    why: str

    @property
    def scores(self) -> Mapping[str, Facts]:
        return promised(self.metric)

    def check(self) -> None:
        raise Unavailable(f"it fails its self-test ({self.why})", "see `python -m fovea.eval.selftest`")

    def needs(self) -> Sequence[PerImage]:
        return []

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

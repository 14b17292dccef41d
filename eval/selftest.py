"""Check that metrics fulfil their contract (`eval.contract`).

    python -m fovea.eval.selftest            all of conf/metric, exit code 1 if one fails
    python -m fovea.eval.selftest psnr fid   only these
    python -m fovea.eval.selftest -          nodes, {name: {_target_: ...}}, as JSON on stdin; answers in JSON

A study reports no values of a metric that fails. A metric without its weights is unavailable, not failed.
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
    """Return `passed`, `unavailable` or `failed`, and why. Any other exception counts as a failure."""
    try:
        with with_reference(metric) as ready:
            check(ready)
    except Unavailable as why:
        return "unavailable", str(why)
    except Failed as why:
        return "failed", str(why)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""


@contextmanager
def with_reference(metric: Any) -> Iterator[Metric]:
    """Yield the metric with the dense images as reference, in a temporary folder, if it needs one."""
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
    """Return why a metric must not be trusted here, or None.

    A passed check is cached on this machine until its settings, code, weights or torch change.
    """

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
    except Exception:  # the self-test will raise it too
        of = None
    try:
        _ = passed() if of is None else remembered(of, passed)
    except Unavailable:  # not a failure
        return None
    except Failed as failure:
        return str(failure)
    return None


def promised(metric: Any) -> Mapping[str, Facts]:
    """Return the scores that the metric declares; one named after its class if it cannot tell."""
    try:
        return dict(metric.scores)
    except Exception:  # this is the name under which it will be reported as unavailable
        name = type(metric).__name__
        return {name.lower(): Facts(name, "higher", "preference")}


def scored(metric: Any, samples: Samples) -> list[Score]:
    """Return the metric's scores; without a value if unavailable, or if its check or the metric raises."""
    try:
        if not samples.random_weights:
            metric.check()
        return metric(samples)
    except Unavailable as e:
        reason, remedy = e.reason, e.remedy
    except Exception as e:  # one metric's failure must not affect the others or the report
        reason = f"it failed over these images ({type(e).__name__}: {e})"
        remedy = "`rescore=` scores the stored images again"
    return [
        Score(name, facts, None, None, samples.n, unavailable=reason, remedy=remedy)
        for name, facts in promised(metric).items()
    ]


def needed(metrics: Iterable[Any]) -> list[PerImage]:
    """Return the per-image values that available metrics need; `scored` reports the others."""
    found: dict[str, PerImage] = {}
    for metric in metrics:
        with suppress(Exception):
            metric.check()
            found |= {signature(what): what for what in metric.needs()}
    return [*found.values()]


def trusted(metric: Any) -> Any:
    """Return the metric, or a stand-in without values if it fails its self-test."""
    why = fault(metric)
    return metric if why is None else Untrusted(metric, why)


@dataclass(frozen=True)
class Untrusted:
    """A metric that failed its self-test; its scores have no value."""

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

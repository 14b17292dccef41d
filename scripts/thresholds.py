"""Find the thresholds at which a cache saves a given share of FLOPs, and how near to dense it stays.

python -m scripts.thresholds model=sd3 cache=seacache [n=8 model.steps=28 ...]   # as for run.py

Generates the images of the first n prompts densely, then with the cache at threshold 0, which gives the
smallest threshold that skips anything, then at thresholds that converge to two and four times fewer FLOPs (of
the transformer, over all images). Prints lines for conf/model/NAME.yaml and a table of every threshold tried.
The results hold for the steps, the guidance and the image size they were measured at. No file is written.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from math import floor, inf, log, log10
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fovea.methods import Baseline, Caching
from fovea.methods.caches import MagCache
from fovea.models import Model, adapt, generator
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import GENERATION
from scripts.measuring import (
    Entry,
    command_line,
    default_n,
    measured_by,
    model_and_samples,
    run_command,
    to_yaml,
)

TARGETS = {"twofold": 2.0, "fourfold": 4.0}
DIGITS = 3
NEAR = 0.01  # relative distance from the target at which the search stops
CLOSE = 1.01  # ratio of thresholds below which the search stops: FLOPs jump between them
LEAST, FIRST, LARGEST = 1e-3, 0.1, 16.0  # thresholds: smallest and first upper end of the search, and largest


class Trial(NamedTuple):
    """One threshold's result.

    times: times fewer FLOPs than dense. psnr: PSNR of the latents to the dense ones in dB, mean over images.
    least: smallest value compared with the threshold; if nothing was skipped, the threshold must exceed it
    to skip anything. None if the cache compares nothing.
    """

    times: float
    psnr: float
    least: float | None = None


class Run(NamedTuple):
    """A run over all samples. x: final tokens (n, tokens, c). flops: in total. least: see `Trial`."""

    x: Tensor
    flops: int
    least: float | None


def smallest_reaching(times: Callable[[float], float], target: float, first: float = 0.02) -> float | None:
    """Return the smallest threshold, to DIGITS digits, with `target` times fewer FLOPs; None if there is none
    up to LARGEST. Assumes that savings rise with the threshold, which changes in the images can violate."""
    found = bracket(times, target, 0.0, first)
    if found is None:
        return None
    low, high = found
    while True:
        middle = rounded((low + high) / 2)
        if not low < middle < high:
            return high
        low, high = (low, middle) if times(middle) >= target else (middle, high)


def nearest(times: Callable[[float], float], target: float, first: float) -> float:
    """Return a threshold within NEAR of `target` times fewer FLOPs. If the savings jump over the target,
    return the nearer end of the jump; if they never reach it, the smallest threshold tried with the largest
    savings.
    first: a threshold known to be not too large."""

    def missed(threshold: float) -> float:
        return abs(times(threshold) / target - 1)

    tried: dict[float, float] = {}

    def kept(threshold: float) -> float:
        return tried.setdefault(threshold, times(threshold))

    found = bracket(kept, target, max(first, LEAST), max(first, FIRST))
    if found is None:
        return max(tried, key=lambda threshold: tried[threshold])
    low, high = found
    while min(missed(low), missed(high)) > NEAR and high > CLOSE * low:
        rise = log(times(high) / times(low))
        share = log(target / times(low)) / rise if rise > 0 else 0.5
        middle = rounded(low * (high / low) ** min(max(share, 0.2), 0.8))
        if not low < middle < high:
            break
        low, high = (low, middle) if times(middle) >= target else (middle, high)
    return min((low, high), key=missed)


def bracket(
    times: Callable[[float], float], target: float, low: float, high: float
) -> tuple[float, float] | None:
    """Return two thresholds, doubling from `high`, of which the upper reaches the target and the lower,
    unless it is the initial `low`, does not; None if no threshold up to LARGEST reaches it."""
    while times(high) < target:
        low, high = high, rounded(2 * high)
        if high > LARGEST:
            return None
    return low, high


def rounded(threshold: float) -> float:
    return float(f"{threshold:.{DIGITS}g}")


def next_above(least: float) -> float:
    """Return the smallest threshold of DIGITS digits above `least`."""
    if least <= 0:
        return 0.0
    near = rounded(least)
    step = 10.0 ** (floor(log10(least)) - DIGITS + 1)
    return near if near > least else rounded(near + step)


def run_method(
    model: Model, method: Any, node: Mapping[str, Any], drawn: Sequence[Sample], batch: int
) -> Run:
    """Generate all samples with one method."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    made, flops, compared = [], 0, []
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        generators = [generator(s.prompt.text, s.seed) for s in part]
        flow = model.flow([s.prompt.text for s in part], generators=generators, **options)
        made.append(method(flow).float().cpu())
        flops += sum(map(flow.flops, range(len(part))))
        compared.append(flow.min_compared())
    return Run(torch.cat(made), flops, min((c for c in compared if c is not None), default=None))


def search(
    measure: Callable[[float], Trial], smallest: float | None = None
) -> tuple[dict[str, float], dict[float, Trial]]:
    """Return the smallest threshold that skips anything and those of the targets, or none if no threshold
    skips, and all results. smallest: the smallest threshold, if known in advance."""
    tried: dict[float, Trial] = {}

    def times(threshold: float) -> float:
        if threshold not in tried:
            tried[threshold] = measure(threshold)
            print(f"threshold {threshold:g}: {tried[threshold].times:.2f}x", file=sys.stderr)
        return tried[threshold].times

    times(0.0)
    if smallest is None:
        least = tried[0.0].least
        smallest = smallest_reaching(times, 1 + 1e-9) if least is None else next_above(least)
    found: dict[str, float] = {}
    if smallest is not None:
        found["smallest"] = smallest
        found["twofold"] = nearest(times, TARGETS["twofold"], smallest)
        found["fourfold"] = nearest(times, TARGETS["fourfold"], found["twofold"])
    return found, dict(sorted(tried.items()))


def entry(found: Mapping[str, float], tried: Mapping[float, Trial]) -> Entry:
    """Return the thresholds of the targets, with their savings and PSNR as a remark."""
    if not found:
        return Entry({}, f"nothing is skipped at any threshold up to {LARGEST:g}")
    known = {name: found[name] for name in TARGETS}
    reached = [tried[threshold] for threshold in known.values()]
    times, near = ", ".join(f"{r.times:.2f}" for r in reached), ", ".join(f"{r.psnr:.1f}" for r in reached)
    remarks = [f"{times} times fewer FLOPs, latents {near} dB near to dense"]
    remarks.append(f"below {found['smallest']:g} nothing is skipped" if found["smallest"] else "always skips")
    return Entry(known, "; ".join(remarks))


def table(tried: Mapping[float, Trial]) -> str:
    """Return a table of all thresholds, as YAML comments."""
    lines = ["# threshold, times fewer FLOPs, PSNR of the latents to dense (dB):"]
    lines += [f"#   {t:g}  {one.times:.2f}  {one.psnr:.1f}" for t, one in tried.items()]
    return "\n".join(lines) + "\n"


def thresholds(arguments: Sequence[str]) -> str:
    """Return the YAML for these arguments. Raises Refused before anything is loaded."""
    n = default_n(arguments)
    config = whole(load(["method=caching", *n, *arguments]))
    caching = instantiate(config["method"], "method", "fovea.methods")
    name = next((a.removeprefix("cache=") for a in arguments if a.startswith("cache=")), "taylorseer")
    cache = caching.cache
    if "threshold" not in {f.name for f in fields(cache)}:
        raise Refused(f"cache={name}: has no threshold; the steps that it runs are known before")
    node, drawn, checkpoint = model_and_samples(config)
    with adapt(checkpoint.load()) as model:
        dense = run_method(model, Baseline(caching.steps), node, drawn, config["batch"])
        found, tried = search_cache(model, caching, dense, node, drawn, config["batch"])
    head = measured_by(command_line("thresholds", arguments, config), drawn, checkpoint.steps)
    return head + table(tried) + to_yaml({name: entry(found, tried)})


def search_cache(
    model: Model,
    caching: Caching,
    dense: Run,
    node: Mapping[str, Any],
    drawn: Sequence[Sample],
    batch: int,
) -> tuple[dict[str, float], dict[float, Trial]]:
    """Run `search` for the cache of `caching`. dense: the baseline's run over these samples.

    MagCache knows its steps in advance, so thresholds that run the same steps share one measurement."""
    made: dict[Any, Run] = {}

    def with_threshold(threshold: float) -> Any:
        return type(caching.cache)(**vars(caching.cache) | {"threshold": threshold})

    def steps(threshold: float) -> tuple[bool, ...]:
        return tuple(with_threshold(threshold).runs(caching.steps))

    def run_at(threshold: float) -> Run:
        same = steps(threshold) if isinstance(caching.cache, MagCache) else threshold
        if same not in made:
            method = Caching(with_threshold(threshold), caching.steps, caching.solver)
            made[same] = run_method(model, method, node, drawn, batch)
        return made[same]

    def measure(threshold: float) -> Trial:
        own = run_at(threshold)
        missed = (own.x - dense.x).square().mean((1, 2))
        psnr = float((-10 * missed.log10()).mean()) if bool(missed.all()) else inf
        return Trial(dense.flops / own.flops, psnr, own.least)

    if not isinstance(caching.cache, MagCache):
        return search(measure)
    return search(measure, smallest_reaching(lambda threshold: 1.0 if all(steps(threshold)) else 2.0, 2.0))


main = partial(run_command, thresholds)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

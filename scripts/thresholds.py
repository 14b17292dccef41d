"""Which threshold of a cache makes a model how much faster, and how near to dense it stays.

python -m scripts.thresholds model=sd3 cache=seacache [n=8 model.steps=28 ...]   # as for run.py

It makes the images of the first n prompts densely, which tells the smallest threshold at which anything is
skipped, then with the cache at thresholds that close in on two and four times fewer FLOPs, of the
transformer and over all images. Prints lines for conf/model/NAME.yaml, and every threshold tried as a table.
They hold for the steps, the guidance and the size they were measured at. Nothing is written.
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
from scripts.measuring import Entry, chosen, command, few, program, source, written

TARGETS = {"twofold": 2.0, "fourfold": 4.0}
DIGITS = 3
NEAR = 0.01  # what comes so near to a target is taken
CLOSE = 1.01  # thresholds of a smaller ratio are not told apart: FLOPs jump between them
LEAST, FIRST, LARGEST = 1e-3, 0.1, 16.0  # of thresholds looked at


class Tried(NamedTuple):
    """times: fewer FLOPs than dense. psnr: of the latents to the dense ones, dB, averaged over images. least:
    where nothing was skipped, what the threshold has to exceed; None where the cache compares nothing."""

    times: float
    psnr: float
    least: float | None = None


class Made(NamedTuple):
    """x: final tokens (n, tokens, c) of all samples. flops: of all. least: see `Tried`."""

    x: Tensor
    flops: int
    least: float | None


def reached(times: Callable[[float], float], target: float, first: float = 0.02) -> float | None:
    """The smallest threshold, to DIGITS digits, at which there are `target` times fewer FLOPs; None if there
    is none up to LARGEST. What comes of a threshold rises with it, but for what changes in the images."""
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
    """A threshold within NEAR of `target` times fewer FLOPs or, where they jump over it, one at the nearer
    end of the jump; where there are never so many, the smallest tried of those with the most. first: one that
    is not too large."""

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
    """Two thresholds, of which the upper one reaches the target and the lower one does not, unless it is
    where the search begins; None if there are none up to LARGEST."""
    while times(high) < target:
        low, high = high, rounded(2 * high)
        if high > LARGEST:
            return None
    return low, high


def rounded(threshold: float) -> float:
    return float(f"{threshold:.{DIGITS}g}")


def above(least: float) -> float:
    """The smallest threshold of DIGITS digits that exceeds it."""
    if least <= 0:
        return 0.0
    near = rounded(least)
    step = 10.0 ** (floor(log10(least)) - DIGITS + 1)
    return near if near > least else rounded(near + step)


def run(model: Model, method: Any, node: Mapping[str, Any], drawn: Sequence[Sample], batch: int) -> Made:
    """All samples by one method."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    made, flops, compared = [], 0, []
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        generators = [generator(s.prompt.text, s.seed) for s in part]
        flow = model.flow([s.prompt.text for s in part], generators=generators, **options)
        made.append(method(flow).float().cpu())
        flops += sum(map(flow.flops, range(len(part))))
        compared.append(flow.least_compared())
    return Made(torch.cat(made), flops, min((c for c in compared if c is not None), default=None))


def search(
    measure: Callable[[float], Tried], smallest: float | None = None
) -> tuple[dict[str, float], dict[float, Tried]]:
    """The thresholds of the targets and the smallest that skips anything, none of which there are where no
    threshold does, and all that were tried. smallest: where it is known beforehand."""
    tried: dict[float, Tried] = {}

    def times(threshold: float) -> float:
        if threshold not in tried:
            tried[threshold] = measure(threshold)
            print(f"threshold {threshold:g}: {tried[threshold].times:.2f}x", file=sys.stderr)
        return tried[threshold].times

    times(0.0)
    if smallest is None:
        least = tried[0.0].least
        smallest = reached(times, 1 + 1e-9) if least is None else above(least)
    found: dict[str, float] = {}
    if smallest is not None:
        found["smallest"] = smallest
        found["twofold"] = nearest(times, TARGETS["twofold"], smallest)
        found["fourfold"] = nearest(times, TARGETS["fourfold"], found["twofold"])
    return found, dict(sorted(tried.items()))


def entry(found: Mapping[str, float], tried: Mapping[float, Tried]) -> Entry:
    """The thresholds of the targets, and what comes of them."""
    if not found:
        return Entry({}, f"nothing is skipped at any threshold up to {LARGEST:g}")
    known = {name: found[name] for name in TARGETS}
    reached = [tried[threshold] for threshold in known.values()]
    times, near = ", ".join(f"{r.times:.2f}" for r in reached), ", ".join(f"{r.psnr:.1f}" for r in reached)
    remarks = [f"{times} times fewer FLOPs, latents {near} dB near to dense"]
    remarks.append(f"below {found['smallest']:g} nothing is skipped" if found["smallest"] else "always skips")
    return Entry(known, "; ".join(remarks))


def table(tried: Mapping[float, Tried]) -> str:
    """Of all thresholds, as comments."""
    lines = ["# threshold, times fewer FLOPs, PSNR of the latents to dense (dB):"]
    lines += [f"#   {t:g}  {one.times:.2f}  {one.psnr:.1f}" for t, one in tried.items()]
    return "\n".join(lines) + "\n"


def thresholds(arguments: Sequence[str]) -> str:
    """The fragment for a command line. Raises Refused before anything is loaded."""
    n = few(arguments)
    config = whole(load(["method=caching", *n, *arguments]))
    caching = instantiate(config["method"], "method", "fovea.methods")
    name = next((a.removeprefix("cache=") for a in arguments if a.startswith("cache=")), "taylorseer")
    cache = caching.cache
    if "threshold" not in {f.name for f in fields(cache)}:
        raise Refused(f"cache={name}: has no threshold; the steps that it runs are known before")
    node, drawn, checkpoint = chosen(config)
    with adapt(checkpoint.load()) as model:
        dense = run(model, Baseline(caching.steps), node, drawn, config["batch"])
        found, tried = measured(model, caching, dense, node, drawn, config["batch"])
    told = source(command("thresholds", arguments, config), drawn, checkpoint.steps)
    return told + table(tried) + written({name: entry(found, tried)})


def measured(
    model: Model,
    caching: Caching,
    dense: Made,
    node: Mapping[str, Any],
    drawn: Sequence[Sample],
    batch: int,
) -> tuple[dict[str, float], dict[float, Tried]]:
    """`search` for the caching's cache. What a cache does that knows its steps beforehand is measured once
    for all thresholds at which it runs the same. dense: the baseline's images of these samples."""
    made: dict[Any, Made] = {}

    def of(threshold: float) -> Any:
        return type(caching.cache)(**vars(caching.cache) | {"threshold": threshold})

    def steps(threshold: float) -> tuple[bool, ...]:
        return tuple(of(threshold).runs(caching.steps))

    def at(threshold: float) -> Made:
        same = steps(threshold) if isinstance(caching.cache, MagCache) else threshold
        if same not in made:
            method = Caching(of(threshold), caching.steps, caching.solver)
            made[same] = run(model, method, node, drawn, batch)
        return made[same]

    def measure(threshold: float) -> Tried:
        own = at(threshold)
        missed = (own.x - dense.x).square().mean((1, 2))
        psnr = float((-10 * missed.log10()).mean()) if bool(missed.all()) else inf
        return Tried(dense.flops / own.flops, psnr, own.least)

    if not isinstance(caching.cache, MagCache):
        return search(measure)
    return search(measure, reached(lambda threshold: 1.0 if all(steps(threshold)) else 2.0, 2.0))


main = partial(program, thresholds)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

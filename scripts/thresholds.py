"""Which threshold of a cache makes a model how much faster, and how near to dense it stays.

python -m scripts.thresholds model=sd3 cache=seacache [n=8 model.steps=28 ...]   # as for run.py

It makes the images of the first n prompts with the dense baseline, then with the cache at thresholds found by
bisection: the smallest at which anything is skipped, and those nearest to two and four times fewer FLOPs, of
the transformer and over all images. Prints lines for conf/model/NAME.yaml, and every threshold tried as a
table. They hold for the steps, the guidance and the size they were measured at. Nothing is written.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fovea.methods import Baseline, Caching
from fovea.models import Model, adapt, generator
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import GENERATION
from scripts.measuring import chosen, few, program

TARGETS = {"twofold": 2.0, "fourfold": 4.0}
DIGITS = 3
LARGEST = 64.0  # of thresholds looked at


class Tried(NamedTuple):
    """times: fewer FLOPs than dense. psnr: of the latents to the dense ones, dB, averaged over images."""

    times: float
    psnr: float


def reached(times: Callable[[float], float], target: float, first: float = 0.02) -> float | None:
    """The smallest threshold, to DIGITS digits, at which there are `target` times fewer FLOPs; None if there
    is none up to LARGEST. What comes of a threshold rises with it, but for what changes in the images."""
    low, high = 0.0, first
    while times(high) < target:
        low, high = high, 2 * high
        if high > LARGEST:
            return None
    while True:
        middle = rounded((low + high) / 2)
        if not low < middle < high:
            return high
        low, high = (low, middle) if times(middle) >= target else (middle, high)


def rounded(threshold: float) -> float:
    return float(f"{threshold:.{DIGITS}g}")


def run(
    model: Model, method: Any, node: Mapping[str, Any], drawn: Sequence[Sample], batch: int
) -> tuple[Tensor, int]:
    """Final tokens (n, tokens, c) of all samples, and their FLOPs."""
    options = {key: node[key] for key in GENERATION if node[key] is not None}
    made, flops = [], 0
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        generators = [generator(s.prompt.text, s.seed) for s in part]
        flow = model.flow([s.prompt.text for s in part], generators=generators, **options)
        made.append(method(flow).float().cpu())
        flops += sum(map(flow.flops, range(len(part))))
    return torch.cat(made), flops


def search(measure: Callable[[float], Tried]) -> tuple[dict[str, float | None], dict[float, Tried]]:
    """The thresholds of the targets and the smallest that skips anything, and all that were tried."""
    tried: dict[float, Tried] = {}

    def times(threshold: float) -> float:
        if threshold not in tried:
            tried[threshold] = measure(threshold)
            print(f"threshold {threshold:g}: {tried[threshold].times:.2f}x", file=sys.stderr)
        return tried[threshold].times

    found = {"smallest": reached(times, 1 + 1e-9)}
    if found["smallest"] is not None:
        found |= {name: reached(times, target, found["smallest"]) for name, target in TARGETS.items()}
    tried = dict(sorted(tried.items()))
    for name, target in TARGETS.items():
        if found.get(name) is not None:  # just below may be nearer
            found[name] = min(tried, key=lambda t, target=target: abs(tried[t].times / target - 1))
    return found, tried


def fragment(name: str, found: Mapping[str, float | None], tried: Mapping[float, Tried], command: str) -> str:
    """YAML for the model's file, and the table as comments."""
    smallest = found["smallest"]
    lines = [
        f"# measured by `{command}`",
        "# threshold, times fewer FLOPs, PSNR of the latents to dense (dB):",
    ]
    lines += [f"#   {t:g}  {one.times:.2f}  {one.psnr:.1f}" for t, one in tried.items()]
    if smallest is None:
        return "\n".join([*lines, f"# nothing is skipped at any threshold up to {LARGEST:g}"]) + "\n"
    lines.append(f"# below {smallest:g} nothing is skipped")
    known = {key: value for key, value in found.items() if key in TARGETS and value is not None}
    most = max(one.times for one in tried.values())
    lines += [f"# {key} is out of reach: {most:.2f} times at most" for key in TARGETS if key not in known]
    inner = ", ".join(f"{key}: {value:g}" for key, value in known.items())
    return "\n".join([*lines, f"{name}: {{{inner}}}"]) + "\n"


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
        dense, flops = run(model, Baseline(caching.steps), node, drawn, config["batch"])

        def measure(threshold: float) -> Tried:
            other = type(cache)(**vars(cache) | {"threshold": threshold})
            x, own = run(model, Caching(other, caching.steps, caching.solver), node, drawn, config["batch"])
            missed = (x - dense).square().mean((1, 2))
            return Tried(flops / own, float((-10 * missed.log10()).mean()) if bool(missed.all()) else inf)

        found, tried = search(measure)
    return fragment(name, found, tried, " ".join(["python -m scripts.thresholds", *n, *arguments]))


main = partial(program, thresholds)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

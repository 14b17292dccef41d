"""Measure the coverage of the intervals that Fovea prints, on simulated studies whose truth is known.

    python -m scripts.coverage [--runs 2000] [--only decibels]

For every kind of interval, with 24 and 100 prompts and one and four seeds of each, prints the share of runs
whose 95 % interval contains the truth, with its standard error. The target is .95; .93 to .97 is accepted.

Coverage of the variants tried for a mean, or a difference, with n = 24 (400 to 5000 runs each; only one is
kept):

                                     decibels     8 % fail by 8 SD, one side   normal
    basic bootstrap, widened         .91 - .93    .86 - .88                    .95
    Student's, delta method          .91 - .93    .86                          .95
    BCa                              .91 - .93    .86                          .95
    Hall's transformation            .91 - .94    .86                          .95
    percentile-t, equal tails        .92 - .95    .86                          .95
    percentile-t, symmetric          .93 - .95    .87                          .95
    the same, widened for one more failure
      on the known worse side        .95 - .96    .95                          .95
      on both sides                  (not used)   .99                         1.00
      on the side of the longer tail (not used)   .91 - .92                    .95
      as before, both if tails equal (not used)   .94 - .95                    .96
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fovea.eval import Score
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, median_interval
from fovea.eval.statistics import mean_interval, paired_difference, standard_error
from fovea.study.analysis.gain import with_gain
from fovea.study.analysis.row import Row
from fovea.study.analysis.verdict import volumes
from fovea.study.plan.cells import Cell

Array = NDArray[np.float64]
Draw = np.random.Generator
Case = Callable[
    [Draw, int, int], tuple[Interval, float]
]  # (draw, prompts, seeds) -> an interval and the truth
PROMPT, OWN = 2.5, 2.0  # standard deviations in dB, between prompts and between images of one
FAILS = 0.08
FACTS = Facts("made up", "higher", "text")
NEPER = 10 / math.log(10)


def images(draw: Draw, n: int, seeds: int, prompt: float, own: float, k: int = 1) -> tuple[Array, list[int]]:
    """Draw values (k, n * seeds) of k cells that share prompt effects; return also each image's prompt."""
    by_prompt = draw.normal(0, prompt, n).repeat(seeds)
    values: Array = np.add(by_prompt, draw.normal(0, own, (k, n * seeds)))
    return values, np.arange(n).repeat(seeds).tolist()


def failed(draw: Draw, shape: tuple[int, ...], by: float) -> Array:
    return by * (draw.random(shape) < FAILS).astype(np.float64)


def decibels(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """PSNR of one cell: 10^(-x/10) is lognormal."""
    x, prompts = images(draw, n, seeds, PROMPT, OWN)
    return mean_interval(x[0], "decibel", prompts, worse="low"), -(PROMPT**2 + OWN**2) / NEPER / 2


def decibels_fail(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """As decibels, with failures by 10 dB."""
    x, prompts = images(draw, n, seeds, PROMPT, OWN)
    truth = -(PROMPT**2 + OWN**2) / NEPER / 2 - NEPER * math.log(1 - FAILS + FAILS * 10)
    return mean_interval(x[0] - failed(draw, x[0].shape, 10), "decibel", prompts, worse="low"), truth


def decibels_apart(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    (a, b), prompts = images(draw, n, seeds, PROMPT, OWN, 2)
    return paired_difference(a - 1, b, pool="decibel", groups=prompts), -1.0


def decibels_of_one_fail(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """As decibels_apart, where only the method's images fail, by 10 dB."""
    (a, b), prompts = images(draw, n, seeds, PROMPT, OWN, 2)
    a = a - failed(draw, a.shape, 10)
    return paired_difference(a, b, pool="decibel", groups=prompts), -NEPER * math.log(1 + 9 * FAILS)


def means(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    x, prompts = images(draw, n, seeds, 1, 1)
    return mean_interval(x[0], groups=prompts, worse="low"), 0.0


def means_fail(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    x, prompts = images(draw, n, seeds, 1, 1)
    by = 8 * math.sqrt(2)
    return mean_interval(x[0] - failed(draw, x[0].shape, by), groups=prompts, worse="low"), -FAILS * by


def means_apart(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    (a, b), prompts = images(draw, n, seeds, 3, 1, 2)
    return paired_difference(a, b, groups=prompts), 0.0


def two_means_apart(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """Two methods, either of which may fail; neither does."""
    (a, b), prompts = images(draw, n, seeds, 3, 1, 2)
    return paired_difference(a, b, groups=prompts, worse="either"), 0.0


def one_side_fails(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """Only the method's images fail, by eight standard deviations of everything else that differs."""
    (a, b), prompts = images(draw, n, seeds, 3, 1, 2)
    by = 8 * math.sqrt(2)
    a = a - failed(draw, a.shape, by)
    return paired_difference(a, b, groups=prompts), -FAILS * by


def one_of_two_fails(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """As one_side_fails, between two methods, without telling the interval which one may fail."""
    (a, b), prompts = images(draw, n, seeds, 3, 1, 2)
    by = 8 * math.sqrt(2)
    a = a - failed(draw, a.shape, by)
    return paired_difference(a, b, groups=prompts, worse="either"), -FAILS * by


def both_fail(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """Two methods that both fail, compared without a worse side."""
    x, prompts = images(draw, n, seeds, 3, 1, 2)
    a, b = x - failed(draw, x.shape, 8)
    return paired_difference(a, b, groups=prompts, worse="either"), 0.0


def cell(name: str, role: str, values: Array, prompts: list[int], shares: Array, pool: str, cost: str) -> Row:
    """Return a table row of a cell. shares: cost of its images, or batches, relative to the dense run's."""
    made = Cell(name, name, role, role, {}, {"_target_": "fovea.methods.X"}, {}, "dense", False, {})  # type: ignore[arg-type]
    groups = [str(p) for p in prompts]
    value = (
        -NEPER * math.log(float(np.mean(np.exp(-values / NEPER))))
        if pool == "decibel"
        else float(values.mean())
    )
    score = Score("s", FACTS, value, standard_error(values, pool, groups), len(values), tuple(values), pool)  # type: ignore[arg-type]
    keys = tuple(map(str, range(len(values))))
    faster = median_interval((1 / shares).tolist())
    names = keys if cost == "flops" else tuple(f"b{i}" for i in range(len(shares)))
    return Row(
        made, len(keys), len(keys), faster, faster, flops_ratio=1 / float(shares.mean()), scores={"s": score},
        keys=keys, prompts=tuple(groups), relative=dict(zip(names, shares.tolist(), strict=True)),
    )  # fmt: skip


CURVE = (0.75, 0.5, 0.35, 0.25)
AT, BETTER = 0.42, 0.5


def study(
    draw: Draw, n: int, seeds: int, pool: str, noise: float, fail: float = 0.0, alone: bool = False
) -> list[Row]:
    """Simulate step reduction whose quality is linear in the cost, and a method that is better by BETTER.

    noise: standard deviation of log times; 0 compares at equal FLOPs. fail: size of the failures, in all
    cells or in the method `alone`.
    """
    spread = (PROMPT, OWN) if pool == "decibel" else (1.0, 0.5)
    x, prompts = images(draw, n, seeds, *spread, len(CURVE) + 1)
    fails = failed(draw, x.shape, fail)
    x = x - (np.where(np.arange(len(x))[:, None] == len(CURVE), fails, 0) if alone else fails)
    batches = max(6, n * seeds // 4)
    cost = "time" if noise else "flops"
    rows = []
    for values, at in zip(x, (*CURVE, AT), strict=True):
        extra = BETTER if at == AT else 0.0
        shares = at * np.exp(draw.normal(0, noise, batches)) if noise else np.full(n * seeds, at)
        role = "method" if at == AT else "steps"
        rows.append(cell(str(at), role, values + 10 * at + extra, prompts, shares, pool, cost))
    return [replace(row, cost=cost) for row in rows]  # type: ignore[arg-type]


def gain(pool: str, noise: float, fail: float = 0.0, alone: bool = False) -> Case:
    lost = NEPER * math.log(1 - FAILS + FAILS * math.exp(fail / NEPER)) if pool == "decibel" else FAILS * fail

    def case(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
        made = study(draw, n, seeds, pool, noise, fail, alone)
        return with_gain(made, made[0].cost)[-1].gain["s"], BETTER - (lost if alone else 0.0)

    return case


def volume(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """The hypervolume of a method's one cell minus that of step reduction: areas between the dense cost and
    a cell's own, above the worst quality."""
    made = study(draw, n, seeds, "mean", 0.0)
    record = next(r for r in volumes(made) if r["cells"] == "method")
    interval = Interval(*(float(record[f"over_step_reduction{end}"]) for end in ("", "_low", "_high")), 0.95)  # type: ignore[arg-type]
    worst, steps = 10 * CURVE[-1], [10 * at for at in CURVE]
    truth = (1 - AT) * (10 * AT + BETTER - worst)
    ends = (1.0, *CURVE)
    return interval, truth - sum((a - b) * (q - worst) for a, b, q in zip(ends, CURVE, steps, strict=False))


def speedups(draw: Draw, n: int, seeds: int) -> tuple[Interval, float]:
    """Speedup from batches of four images, whose times drift together and have heavy tails."""
    batches = n * seeds // 4
    common = np.exp(0.1 * draw.normal(size=batches).cumsum() / math.sqrt(batches))
    a, b = common * np.exp(0.03 * draw.standard_t(3, (2, batches)))
    return median_interval((2 * a / b).tolist()), 2.0


CASES: dict[str, Case] = {
    "mean": means,
    "mean, 8 % fail": means_fail,
    "decibels": decibels,
    "decibels, 8 % fail": decibels_fail,
    "difference": means_apart,
    "difference of two methods": two_means_apart,
    "difference, decibels": decibels_apart,
    "difference, a method fails": one_side_fails,
    "difference, one of two methods fails": one_of_two_fails,
    "difference, both fail": both_fail,
    "gain": gain("mean", 0.0),
    "gain, decibels": gain("decibel", 0.0),
    "gain, decibels, times vary by 10 %": gain("decibel", 0.1),
    "gain, all fail": gain("mean", 0.0, 5.0),
    "gain, the method alone fails": gain("mean", 0.0, 5.0, alone=True),
    "hypervolume over step reduction": volume,
    "speedup": speedups,
}
SHORT: dict[str, Case] = {  # kinds that fall short of the target: see `table`
    "difference, decibels, a method fails": decibels_of_one_fail,
    "gain, decibels, the method alone fails": gain("decibel", 0.0, 10.0, alone=True),
}


def covered(case: Case, n: int, seeds: int, runs: int) -> float:
    hits = 0
    for run in range(runs):
        interval, truth = case(np.random.default_rng((n, seeds, run)), n, seeds)
        hits += interval.low <= truth <= interval.high
    return hits / runs


def table(runs: int, only: str = "") -> Iterator[str]:
    """Yield the lines of the table, SHORT last.

    SHORT falls short because one image that failed by 10 dB outweighs ten others in a mean of powers, and a
    sample without failures does not show that they exist: differences of 24 images cover .99 with two
    failures or more among them, .89 with one, .15 with none. Widened for one more failure on the side of the
    longer tail in decibels, they would be 1.7 times as wide without failures and cover .90; on both sides 2.6
    times, for .93.
    """
    yield f"{'95 % interval of':36}{'prompts':>8}{'seeds':>6}  covers"
    for (name, case), n, seeds in product((CASES | SHORT).items(), (24, 100), (1, 4)):
        if only in name:
            share = covered(case, n, seeds, runs)
            error = math.sqrt(share * (1 - share) / runs)
            yield f"{name:36}{n:8}{seeds:6}  {share:.3f} ± {error:.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--only", default="", help="run only the kinds whose name contains this")
    arguments = parser.parse_args()
    for line in table(arguments.runs, arguments.only):
        print(line, flush=True)

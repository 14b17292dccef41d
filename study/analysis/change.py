"""Differences between two studies, per cell and figure, with confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from fovea.eval.decisions import holm
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, median_interval, two_sided
from fovea.eval.statistics import Pool, pooled
from fovea.study.analysis.contrasts import comparable, difference, ways_to_pool
from fovea.study.stored import Record, Stored

COSTS = ("seconds", "speedup", "flops", "memory_bytes")
Values = Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """Change of one figure (a score or a cost) of one cell from study a to study b.

    a, b: the figure in each study.
    facts: properties of the score; None for a cost.
    by: b - a; for costs relative to a, 0.02 for 2 % more.
    pairs: number of images or batches that both studies have; 0 if the two were taken as independent.
    why: reason if there is no difference.
    holm: p-value after Holm's correction for all figures of the comparison.
    """

    cell: str
    figure: str
    a: float | None
    b: float | None
    facts: Facts | None = None
    by: Interval | None = None
    pairs: int = 0
    why: str = ""
    holm: float | None = None

    @property
    def relative(self) -> bool:
        return self.figure in COSTS


def changes(a: Stored, b: Stored, pairs: Sequence[tuple[Record, Record]]) -> list[Change]:
    """Compare costs and scores of pairs of cells. pairs: table records of the cells in a and b."""
    scores, facts = list(dict.fromkeys([*a.scores, *b.scores])), {**a.facts, **b.facts}
    found = []
    for x, y in pairs:
        found += [_cost(a, b, x, y, name) for name in COSTS]
        found += [_score(a, b, x, y, name, facts[name]) for name in scores if not facts[name].hidden]
    found = [c for c in found if c.a is not None or c.b is not None]
    p = {(c.cell, c.figure): c.by.p for c in found if c.by is not None and c.by.p is not None}
    adjusted = holm(p)
    return [replace(c, holm=adjusted.get((c.cell, c.figure))) for c in found]


def _cost(a: Stored, b: Stored, x: Record, y: Record, name: str) -> Change:
    change = Change(y["label"], name, x.get(name), y.get(name))
    if not change.a or change.b is None:
        return change
    ratio = change.b / change.a
    if name not in ("seconds", "speedup"):
        return replace(change, by=Interval(ratio - 1, ratio - 1, ratio - 1, 0.0))
    in_a, in_b = _times_by_batch(a, x["cell"], name), _times_by_batch(b, y["cell"], name)
    shared = [batch for batch in in_a if batch in in_b]
    if shared:
        by = median_interval([in_b[batch] / in_a[batch] - 1 for batch in shared])
        return replace(change, by=by, pairs=len(shared))
    if any(r.get(f"{name}_low") is None for r in (x, y)):
        return change
    spread = math.hypot(*(math.log(r[f"{name}_high"] / r[f"{name}_low"]) / 2 for r in (x, y)))
    low, high = (ratio * math.exp(side * spread) - 1 for side in (-1, 1))
    return replace(change, by=Interval(ratio - 1, low, high, 0.95))


def _times_by_batch(study: Stored, cell: str, name: str) -> Values:
    """Return seconds per image, or the speedup over the baseline, of each full batch."""
    times = _by_batch(study, cell, "seconds")
    if name == "seconds":
        return times
    if any("dense_seconds" in image for image in study.by_cell.get(cell, [])):
        dense = _by_batch(study, cell, "dense_seconds")
    else:  # written before the dense call of each pair was
        dense = _by_batch(study, study.provenance["cells"].get(cell, {}).get("dense", ""), "seconds")
    return {batch: dense[batch] / seconds for batch, seconds in times.items() if batch in dense}


def _by_batch(study: Stored, cell: str, time: str) -> Values:
    """Return a time of each full batch that has one which counts."""
    rows = study.by_cell.get(cell, [])
    largest = max((r["batch_size"] for r in rows), default=0)
    full = (r for r in rows if r["batch_size"] == largest)
    return {r["batch"]: r[time] for r in full if r[time] is not None}


def _score(a: Stored, b: Stored, x: Record, y: Record, name: str, facts: Facts) -> Change:
    change = Change(y["label"], name, x.get(name), y.get(name), facts)
    if change.a is None or change.b is None:
        return replace(change, why=f"unavailable in the {'first' if change.a is None else 'second'}")
    if facts.biased and x["n"] != y["n"]:
        return replace(change, why=f"of {x['n']} and {y['n']} images: such distances do not compare")
    in_a, in_b = a.per_image(x["cell"], name), b.per_image(y["cell"], name)
    shared = comparable(facts, in_a, in_b)
    pool = _common_pool([*in_a.values()], change.a, [*in_b.values()], change.b)
    if pool and len(shared) > 1:
        prompts = {r["key"]: r["prompt"] for r in a.by_cell[x["cell"]]}
        x_values, y_values = ([values[key] for key in shared] for values in (in_a, in_b))
        return _paired(change, facts, pool, x_values, y_values, [prompts[key] for key in shared])
    prompts = (len({r["prompt"] for r in s.by_cell.get(own["cell"], [])}) for s, own in ((a, x), (b, y)))
    return _independent(change, x, y, *prompts)


def _common_pool(a: list[float], in_a: float, b: list[float], in_b: float) -> Pool | None:
    """Return how values pool to the figures of both studies, in_a and in_b, or else to one of them."""
    of_a, of_b = ways_to_pool(a, in_a), ways_to_pool(b, in_b)
    ways: list[Pool] = [way for way in of_a if way in of_b] or of_a + of_b
    return ways[0] if ways else None


def _paired(
    change: Change, facts: Facts, pool: Pool, x: list[float], y: list[float], prompts: list[str]
) -> Change:
    """Compare over the images that both studies have, resampled jointly. x, y: their values in a and in b."""
    a, b = float(pooled(x, pool=pool)), float(pooled(y, pool=pool))
    found = replace(change, a=a, b=b, pairs=len(prompts))
    if np.allclose(x, y, rtol=1e-9):  # differences from summation order only
        return replace(found, by=Interval(0.0, 0.0, 0.0, 0.95, 1.0))
    try:
        return replace(found, by=difference(facts, pool, y, x, prompts))
    except ValueError as error:
        return replace(found, why=str(error))


def _independent(change: Change, x: Record, y: Record, prompts_x: int, prompts_y: int) -> Change:
    """Compare as independent samples, from the standard errors in the tables.

    prompts_x, prompts_y: numbers of prompts, which are the draws; 0 if unknown, for as many as images.
    """
    se_a, se_b = (record.get(f"{change.figure}_se") for record in (x, y))
    n, m = (p or r.get(f"{change.figure}_n") or 0 for p, r in ((prompts_x, x), (prompts_y, y)))
    if change.a is None or change.b is None or not math.isfinite(change.b - change.a):
        return replace(change, why="one of them is infinite")
    if se_a is None or se_b is None or n + m < 4:
        return replace(change, why="without standard errors")
    error, value, dof = math.hypot(se_a, se_b), change.b - change.a, n + m - 2
    half = -stdtrit(dof, 0.025) * error
    by = Interval(value, value - half, value + half, 0.95, two_sided(value, error, dof + 1))
    return replace(change, by=by)

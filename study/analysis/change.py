"""What changed between two studies, figure by figure, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from fovea.eval.decisions import holm
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, Worse, median_interval, two_sided
from fovea.eval.statistics import Pool, paired_difference, pooled
from fovea.study.analysis.contrasts import how_pooled
from fovea.study.stored import Record, Stored

COSTS = ("seconds", "speedup", "flops", "memory_bytes")
Values = Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """a, b: the figure in either study; facts: of a score. by: b minus a; of costs as a share of a, 0.02 for
    2 % more. pairs: of images, or of batches, that it is over; 0 where the two are independent. why: there
    is no difference. holm: its p-value adjusted for all of the comparison."""

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
    """pairs: records of the cells to be compared."""
    scores, facts = list(dict.fromkeys([*a.scores, *b.scores])), {**a.facts, **b.facts}
    found = []
    for x, y in pairs:
        found += [_cost(a, b, x, y, name) for name in COSTS]
        found += [_score(a, b, x, y, name, facts[name]) for name in scores if not facts[name].hidden]
    known = [c for c in found if c.a is not None or c.b is not None]
    p = {(c.cell, c.figure): c.by.p for c in known if c.by is not None and c.by.p is not None}
    adjusted = holm(p)
    return [replace(c, holm=adjusted.get((c.cell, c.figure))) for c in known]


def _cost(a: Stored, b: Stored, x: Record, y: Record, name: str) -> Change:
    change = Change(y["label"], name, x.get(name), y.get(name))
    if not change.a or change.b is None:
        return change
    share = change.b / change.a
    if name not in ("seconds", "speedup"):
        return replace(change, by=Interval(share - 1, share - 1, share - 1, 0.0))
    mine, others = ({**_timed(s, r["cell"], name)} for s, r in ((a, x), (b, y)))
    both = [batch for batch in mine if batch in others]
    if both:
        by = median_interval([others[batch] / mine[batch] - 1 for batch in both])
        return replace(change, by=by, pairs=len(both))
    if any(r.get(f"{name}_low") is None for r in (x, y)):
        return change
    spread = math.hypot(*(math.log(r[f"{name}_high"] / r[f"{name}_low"]) / 2 for r in (x, y)))
    low, high = (share * math.exp(side * spread) - 1 for side in (-1, 1))
    return replace(change, by=Interval(share - 1, low, high, 0.95))


def _timed(study: Stored, cell: str, name: str) -> Values:
    """Seconds per image, or the speedup over the baseline, by full batch."""
    mine = _batches(study, cell)
    if name == "seconds":
        return mine
    dense = _batches(study, study.provenance["cells"].get(cell, {}).get("dense", ""))
    return {batch: dense[batch] / seconds for batch, seconds in mine.items() if batch in dense}


def _batches(study: Stored, cell: str) -> Values:
    rows = study.by_cell.get(cell, [])
    largest = max((r["batch_size"] for r in rows), default=0)
    return {r["batch"]: r["seconds"] for r in rows if r["batch_size"] == largest}


def _score(a: Stored, b: Stored, x: Record, y: Record, name: str, facts: Facts) -> Change:
    change = Change(y["label"], name, x.get(name), y.get(name), facts)
    if change.a is None or change.b is None:
        return replace(change, why=f"unavailable in the {'first' if change.a is None else 'second'}")
    mine, others = _images(a, x["cell"], name), _images(b, y["cell"], name)
    both = [key for key in mine if key in others]
    whole = len(both) == len(mine) == len(others)
    if facts.biased and x["n"] != y["n"]:
        return replace(change, why=f"of {x['n']} and {y['n']} images: such distances do not compare")
    pool = how_pooled([*mine.values()], change.a) or how_pooled([*others.values()], change.b)
    if pool and len(both) > 1 and (whole or facts.kind != "distance"):
        return _paired(a, change, pool, [(key, mine[key], others[key]) for key in both])
    return _independent(change, x, y)


def _images(study: Stored, cell: str, name: str) -> Values:
    rows = study.by_cell.get(cell, [])
    return {r["key"]: r[name] for r in rows if r.get(name) is not None}


def _paired(study: Stored, change: Change, pool: Pool, values: Sequence[tuple[str, float, float]]) -> Change:
    """Over the images that both have, resampled together."""
    prompts = {r["key"]: r["prompt"] for r in study.samples}
    keys, x, y = zip(*values, strict=True)
    a, b = float(pooled(x, pool=pool)), float(pooled(y, pool=pool))
    found = replace(change, a=a, b=b, pairs=len(keys))
    if np.allclose(x, y, rtol=1e-9):  # another order of summation is no change
        return replace(found, by=Interval(0.0, 0.0, 0.0, 0.95, 1.0))
    worse: Worse | None = None if change.facts and change.facts.kind == "distance" else "either"
    try:
        by = paired_difference(y, x, pool=pool, groups=[prompts[key] for key in keys], worse=worse)
        return replace(found, by=by)
    except ValueError as error:
        return replace(found, why=str(error))


def _independent(change: Change, x: Record, y: Record) -> Change:
    """From the standard errors in the tables."""
    (p, n), (q, m) = ((r.get(f"{change.figure}_se"), r.get(f"{change.figure}_n") or 0) for r in (x, y))
    if change.a is None or change.b is None or not math.isfinite(change.b - change.a):
        return replace(change, why="one of them is infinite")
    if p is None or q is None or n + m < 4:
        return replace(change, why="without standard errors")
    error, value, free = math.hypot(p, q), change.b - change.a, n + m - 2
    half = -stdtrit(free, 0.025) * error
    by = Interval(value, value - half, value + half, 0.95, two_sided(value, error, free + 1))
    return replace(change, by=by)

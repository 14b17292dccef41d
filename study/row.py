"""One row of the table per cell: what was measured, paired with the dense baseline of the same prompts and
seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from eval import Score
from eval.statistics import Interval, basic, median_interval, pooled, resamples
from study.plan import Cell

Record = dict[str, Any]
Cost = Literal["time", "flops"]


@dataclass(frozen=True)
class Row:
    """n of the planned samples are finished. seconds: per image, of full batches. speedup: time of the dense
    run over time of this one, batch by batch. flops: of an image, the mean of all; flops_ratio: those of the
    dense run over it. counted: FLOPs of one image as torch counts them over those of the closed form. memory:
    peak, in bytes. gain: each score minus what step reduction gets at the same cost, signed so that more is
    better."""

    cell: Cell
    n: int
    planned: int
    seconds: Interval | None = None
    speedup: Interval | None = None
    flops: float | None = None
    counted: float | None = None
    flops_ratio: float | None = None
    memory: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    cost: Cost = "time"
    gain: Mapping[str, Interval] = field(default_factory=dict)
    failure: str | None = None

    @property
    def cheaper(self) -> float:
        """How many times less than dense it costs; 0 if unknown."""
        if self.cost == "flops":
            return self.flops_ratio or 0.0
        return self.speedup.value if self.speedup else 0.0

    @property
    def disagrees(self) -> bool:
        """The clock and the FLOPs tell stories more than 10 % apart."""
        if self.speedup is None or self.flops_ratio is None:
            return False
        return abs(self.speedup.value / self.flops_ratio - 1) > 0.1


def batches(records: Mapping[str, Record]) -> dict[str, Record]:
    """The timed calls behind a cell's samples. A smaller last batch is timed for itself: seconds per image
    would not compare, so it counts only where there is no full one."""
    found = {r["batch"]["id"]: r["batch"] for r in records.values()}
    largest = max((b["size"] for b in found.values()), default=0)
    return {name: b for name, b in found.items() if b["size"] == largest}


def seconds(records: Mapping[str, Record]) -> Interval | None:
    timed = batches(records).values()
    return median_interval([b["seconds"] / b["size"] for b in timed]) if timed else None


def speedup(dense: Mapping[str, Record], records: Mapping[str, Record]) -> Interval | None:
    a, b = batches(dense), batches(records)
    ratios = [a[name]["seconds"] / b[name]["seconds"] for name in a if name in b]
    return median_interval(ratios) if ratios else None


def mean_flops(records: Mapping[str, Record]) -> float | None:
    return float(np.mean([r["flops"] for r in records.values()])) if records else None


def flops_ratio(dense: Mapping[str, Record], records: Mapping[str, Record]) -> float | None:
    """Of the images that both have."""
    both = dense.keys() & records.keys()
    mine = sum(records[key]["flops"] for key in both)
    return sum(dense[key]["flops"] for key in both) / mine if mine else None


def no_op(cell: Cell, dense: Mapping[str, Record], records: Mapping[str, Record]) -> str | None:
    """Why the method is none, if it is switched on and yet every image had all that the dense run gives."""
    both = dense.keys() & records.keys()
    if cell.role != "method" or cell.off or not both or cell.dense == cell.id:
        return None
    if any(records[key]["tokens"] < dense[key]["tokens"] for key in both):
        return None
    if any(records[key]["flops"] > dense[key]["flops"] for key in both):  # a costlier solver, say
        return None
    return "no-op: it is switched on, and nothing was skipped; other settings, or a run of its off settings"


def with_gain(rows: Sequence[Row], cost: Cost = "time") -> list[Row]:
    """The rows with their gain over the step-reduction curve of the same baseline, at equal time or FLOPs."""
    rows = [replace(row, cost=cost) for row in rows]
    return [row if row.cell.role != "method" else _gained(row, _curve(row, rows)) for row in rows]


def _curve(row: Row, rows: Sequence[Row]) -> list[Row]:
    curve = [r for r in rows if r.cell.dense == row.cell.dense and r.cell.role != "method" and r.cheaper]
    return sorted(curve, key=lambda r: r.cheaper)


def _gained(row: Row, curve: Sequence[Row]) -> Row:
    if not row.cheaper or len(curve) < 2:
        return row
    for slower, quicker in pairwise(curve):
        x, a, b = row.cheaper, slower.cheaper, quicker.cheaper
        if a <= x <= b:
            share = _share(x, a, b)
            named = {name: _difference(row, slower, quicker, name, share) for name in row.scores}
            gain = {name: interval for name, interval in named.items() if interval is not None}
            return replace(row, gain=gain)
    return row


def _share(x: float, a: float, b: float) -> float:
    """How far x lies from a to b, linear in the cost: 1 / speedup."""
    return 0.0 if a == b else (1 / a - 1 / x) / (1 / a - 1 / b)


def _difference(row: Row, slower: Row, quicker: Row, name: str, share: float) -> Interval | None:
    scores = [r.scores.get(name) for r in (row, slower, quicker)]
    values = [s.value for s in scores if s is not None and s.value is not None and np.isfinite(s.value)]
    if len(values) < 3:
        return None
    sign = 1 if row.scores[name].better == "higher" else -1
    mix = np.array([1, share - 1, -share]) * sign
    value = float(mix @ values)
    images = [s.per_image for s in scores if s is not None and s.per_image is not None]
    n = row.scores[name].n
    if len(images) < 3 or n < 2 or any(len(x) != n for x in images):
        return Interval(value, float("nan"), float("nan"), 0.0)
    weights = resamples(n)
    drawn = sum(m * pooled(x, weights, row.scores[name].pool) for m, x in zip(mix, images, strict=True))
    return (
        basic(value, drawn, n)
        if np.isfinite(drawn).all()
        else Interval(value, float("nan"), float("nan"), 0.0)
    )

"""One row of the table per cell: what was measured, paired with the dense baseline of the same prompts and
seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from eval import Score
from eval.statistics import Interval, basic, median_interval, pooled, resamples
from study.plan import Cell

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """n of the planned samples are finished. seconds: per image, of full batches. speedup: time of the dense
    run over time of this one, batch by batch. flops: of one image, counted; closed: by formula. memory: peak,
    in bytes. gain: each score minus what step reduction gets at the same speedup, signed so that more is
    better."""

    cell: Cell
    n: int
    planned: int
    seconds: Interval | None = None
    speedup: Interval | None = None
    flops: float | None = None
    closed: float | None = None
    flops_ratio: float | None = None
    memory: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    gain: Mapping[str, Interval] = field(default_factory=dict)
    failure: str | None = None

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


def with_gain(rows: Sequence[Row]) -> list[Row]:
    """The rows with their gain over the step-reduction curve of the same baseline."""
    return [row if row.cell.role != "method" else _gained(row, _curve(row, rows)) for row in rows]


def _curve(row: Row, rows: Sequence[Row]) -> list[Row]:
    curve = [r for r in rows if r.cell.dense == row.cell.dense and r.cell.role != "method" and r.speedup]
    return sorted(curve, key=_speed)


def _speed(row: Row) -> float:
    return row.speedup.value if row.speedup else 0.0


def _gained(row: Row, curve: Sequence[Row]) -> Row:
    if row.speedup is None or len(curve) < 2:
        return row
    for slower, faster in pairwise(curve):
        if _speed(slower) <= _speed(row) <= _speed(faster):
            share = _share(_speed(row), _speed(slower), _speed(faster))
            named = {name: _difference(row, slower, faster, name, share) for name in row.scores}
            gain = {name: interval for name, interval in named.items() if interval is not None}
            return replace(row, gain=gain)
    return row


def _share(x: float, a: float, b: float) -> float:
    """How far x lies from a to b, linear in time: 1 / speedup."""
    return 0.0 if a == b else (1 / a - 1 / x) / (1 / a - 1 / b)


def _difference(row: Row, slower: Row, faster: Row, name: str, share: float) -> Interval | None:
    scores = [r.scores.get(name) for r in (row, slower, faster)]
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

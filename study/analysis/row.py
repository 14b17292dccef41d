"""One row of the table per cell: what was measured, paired with the dense baseline of the same prompts and
seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fovea.eval import Score
from fovea.eval.decisions import Verdict
from fovea.eval.interval import Interval, Worse, Z, median_interval
from fovea.eval.statistics import mean_interval
from fovea.study.analysis.speed import Speed, pairs
from fovea.study.plan.cells import Cell
from fovea.study.records import Finished

Cost = Literal["time", "flops"]


@dataclass(frozen=True)
class Row:
    """n of the planned samples are finished. seconds: per image, of full batches. speedup: time of the dense
    run over time of this one, batch by batch. flops: of an image, the mean of all; flops_ratio: those of the
    dense run over it. counted: FLOPs of one image as torch counts them over those of the closed form. memory:
    peak, in bytes. gain: each score minus what step reduction gets at the same cost, signed so that more is
    better. keys, prompts: of the images, in the order of a score's `per_image`. relative: cost over that of
    the dense run, by batch for time, by image for FLOPs. holm, gain_holm: p-values of the scores' differences
    to dense and of the gains, adjusted for the table. verdicts: whether a score is within its margin. front:
    how probably the cell is on the Pareto front. floor: what a lossless change does to a score
    (scripts/floor.py)."""

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
    keys: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    relative: Mapping[str, float] = field(default_factory=dict)
    speed: Speed | None = None
    holm: Mapping[str, float] = field(default_factory=dict)
    gain_holm: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    front: Mapping[str, float] = field(default_factory=dict)
    floor: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    @property
    def cheaper(self) -> float:
        """How many times less than dense it costs; 0 if unknown."""
        if self.cost == "flops":
            return self.flops_ratio or 0.0
        return self.speedup.value if self.speedup else 0.0

    @property
    def apart(self) -> int:
        """How many of its batches are paired with dense ones that were timed in another session."""
        return self.speed.apart if self.speed else 0

    @property
    def disagrees(self) -> bool:
        """The clock and the FLOPs tell stories more than 10 % apart."""
        if self.speedup is None or self.flops_ratio is None:
            return False
        return abs(self.speedup.value / self.flops_ratio - 1) > 0.1


def relative(dense: Finished, records: Finished, cost: Cost) -> dict[str, float]:
    """Cost over that of the dense run, of what both have: batches for time, images for FLOPs."""
    if cost == "flops":
        own, others = paired(dense, records, "flops")
        return dict(zip(dense.only(records), (others / own).tolist(), strict=True))
    return {name: own.seconds / other.seconds for name, (other, own) in pairs(dense, records).items()}


def paired(dense: Finished, records: Finished, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A figure of the images that both have, in the same order."""
    both = dense.only(records)
    return both.column(name), records.only(both).column(name)


def speedup(dense: Finished, records: Finished) -> Interval | None:
    ratios = [1 / share for share in relative(dense, records, "time").values()]
    return median_interval(ratios) if ratios else None


def mean_flops(records: Finished) -> float | None:
    return float(np.mean(records.column("flops"))) if records else None


def flops_ratio(dense: Finished, records: Finished) -> float | None:
    """Of the images that both have."""
    own, others = paired(dense, records, "flops")
    return float(own.sum() / others.sum()) if others.sum() else None


def no_op(cell: Cell, dense: Finished, records: Finished) -> str | None:
    """Why the method is none, if it is switched on, skips nothing and every image is the dense one. Another
    solver at full steps skips nothing either, but its images are its own."""
    (tokens, fewer), (files, same) = (paired(dense, records, name) for name in ("tokens", "sha256"))
    if cell.role != "method" or cell.off or not len(tokens) or cell.dense == cell.id:
        return None
    if (fewer < tokens).any() or (files != same).any():
        return None
    why = "no-op: it is switched on, and nothing was skipped; "
    known = records.flops
    if known is None or known.least is None:
        return f"{why}other settings, or a run of its off settings"
    return f"{why}on its first images (n={known.images}) something is at a threshold above {known.least:.3g}"


def score_interval(score: Score, row: Row) -> Interval:
    """Of a score that there is, over prompts; of a figure of the whole set, from its standard error."""
    if score.value is None:
        raise ValueError(f"{score.name} has no value")
    if score.per_image is not None:
        distance = score.facts.kind == "distance"
        worse: Worse | None = None if distance else "low" if score.better == "higher" else "high"
        return mean_interval(score.per_image, score.pool, row.prompts or None, worse=worse)
    half = Z * (score.se or 0.0)
    return Interval(score.value, score.value - half, score.value + half, 0.95 if score.se else 0.0)

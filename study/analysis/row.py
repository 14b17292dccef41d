"""Table rows: the measurements of one cell, paired with the dense baseline on the same prompts and seeds."""

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
    """The results of one cell. Mappings are by score name unless stated otherwise.

    n, planned: finished and planned images.
    seconds: per image, over full batches.
    speedup: time of the dense run over time of this cell, batch by batch.
    flops: mean FLOPs per image.
    counted: FLOPs per image as counted by torch over those of the closed form.
    flops_ratio: FLOPs of the dense run over those of this cell.
    memory: peak memory in bytes.
    cost: whether gains and fronts compare cells by time or by FLOPs.
    gain: score minus that of step reduction at the same cost, signed so that more is better.
    failure: why the cell failed or is incomplete.
    keys, prompts: of the images, in the order of a score's `per_image`.
    relative: cost over that of the dense run, by batch for time and by image for FLOPs.
    holm, gain_holm: p-values of the differences to dense and of the gains, after Holm's correction for the
        table.
    verdicts: whether a score stays within its margin.
    front: probability that the cell is on the Pareto front.
    floor: effect of lossless changes on the scores, by change and score (scripts/floor.py).
    """

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
    def cost_ratio(self) -> float:
        """Cost of the dense run over that of this cell; 0 if unknown."""
        if self.cost == "flops":
            return self.flops_ratio or 0.0
        return self.speedup.value if self.speedup else 0.0

    @property
    def apart(self) -> int:
        """Number of batches paired with a dense batch that was timed in another session."""
        return self.speed.apart if self.speed else 0

    @property
    def disagrees(self) -> bool:
        """True if speedup and FLOPs ratio differ by more than 10 %."""
        if self.speedup is None or self.flops_ratio is None:
            return False
        return abs(self.speedup.value / self.flops_ratio - 1) > 0.1


def relative(dense: Finished, records: Finished, cost: Cost) -> dict[str, float]:
    """Return the cost over that of the dense run, by shared batch for time and by shared image for FLOPs."""
    if cost == "flops":
        own, others = paired(dense, records, "flops")
        return dict(zip(dense.only(records), (others / own).tolist(), strict=True))
    return {name: own.seconds / other.seconds for name, (other, own) in pairs(dense, records).items()}


def paired(dense: Finished, records: Finished, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of the images that both have, in the same order: (of dense, of the cell)."""
    shared = dense.only(records)
    return shared.column(name), records.only(shared).column(name)


def speedup(dense: Finished, records: Finished) -> Interval | None:
    ratios = [1 / share for share in relative(dense, records, "time").values()]
    return median_interval(ratios) if ratios else None


def mean_flops(records: Finished) -> float | None:
    return float(np.mean(records.column("flops"))) if records else None


def flops_ratio(dense: Finished, records: Finished) -> float | None:
    """Return FLOPs of dense over those of the cell, over the images that both have."""
    own, others = paired(dense, records, "flops")
    return float(own.sum() / others.sum()) if others.sum() else None


def no_op(cell: Cell, dense: Finished, records: Finished) -> str | None:
    """Return an explanation if a method that is switched on has no effect, else None.

    It has none if it skips no token and every image equals the dense one. Another solver at the full number
    of steps skips nothing either, but makes different images.
    """
    (dense_tokens, tokens), (dense_files, files) = (
        paired(dense, records, name) for name in ("tokens", "sha256")
    )
    if cell.role != "method" or cell.off or not len(tokens) or cell.dense == cell.id:
        return None
    if (tokens < dense_tokens).any() or (files != dense_files).any():
        return None
    why = "no-op: it is switched on, and nothing was skipped; "
    known = records.flops
    if known is None or known.least is None:
        return f"{why}other settings, or a run of its off settings"
    return f"{why}on its first images (n={known.images}) something is at a threshold above {known.least:.3g}"


def score_interval(score: Score, row: Row) -> Interval:
    """Return the confidence interval of a score, resampled over prompts where it has per-image values.

    A score of the whole set has an interval from its standard error, or none (level 0) without it. Raises
    ValueError if the score has no value.
    """
    if score.value is None:
        raise ValueError(f"{score.name} has no value")
    if score.per_image is not None:
        is_distance = score.facts.kind == "distance"
        worse: Worse | None = None if is_distance else "low" if score.better == "higher" else "high"
        return mean_interval(score.per_image, score.pool, row.prompts or None, worse=worse)
    half = Z * (score.se or 0.0)
    return Interval(score.value, score.value - half, score.value + half, 0.95 if score.se else 0.0)

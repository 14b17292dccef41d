"""Verdicts on each cell of a table: corrected p-values, non-inferiority margins and Pareto fronts."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fovea.eval import Score
from fovea.eval.decisions import Verdict, holm, verdict
from fovea.eval.front import hypervolume, membership
from fovea.eval.interval import Interval
from fovea.study.analysis.bootstrap import Array, Statistic, cost_replicates, interval, resampled, sign
from fovea.study.analysis.row import Row, score_interval

Margins = Mapping[str, float]


def with_verdicts(rows: Sequence[Row], margins: Margins) -> list[Row]:
    """Add corrected p-values, margin verdicts and front probabilities to the rows.

    margins: accepted loss by score name; the part in brackets may be omitted.
    """
    compared = [row for row in rows if row.cell.role != "diagnosis"]
    differences = _holm_by_cell(compared, lambda row: {name: s.difference for name, s in row.scores.items()})
    gains = _holm_by_cell(compared, lambda row: row.gain)
    fronts = _fronts(rows)
    return [
        replace(
            row,
            holm=differences.get(row.cell.id, {}),
            gain_holm=gains.get(row.cell.id, {}),
            verdicts={} if row.cell.role in ("dense", "diagnosis") else _verdicts(row, margins),
            front=fronts.get(row.cell.id, {}),
        )
        for row in rows
    ]


def _holm_by_cell(
    rows: Sequence[Row], intervals: Callable[[Row], Mapping[str, Interval | None]]
) -> dict[str, dict[str, float]]:
    """Return p-values by cell and score, after Holm's correction for all cells and scores of the table."""
    p_values = {
        (row.cell.id, name): interval.p
        for row in rows
        for name, interval in intervals(row).items()
        if interval is not None and interval.p is not None
    }
    found: dict[str, dict[str, float]] = {}
    for (cell, name), p in holm(p_values).items():
        found.setdefault(cell, {})[name] = p
    return found


def margin(name: str, margins: Margins) -> float | None:
    """Return the margin of a score; fd[emoji] falls back to that of fd."""
    return margins.get(name, margins.get(name.partition("[")[0]))


def _verdicts(row: Row, margins: Margins) -> dict[str, Verdict]:
    found = {name: (score, margin(name, margins)) for name, score in row.scores.items()}
    return {
        name: judge(score, allowed, row)
        for name, (score, allowed) in found.items()
        if allowed is not None and score.value is not None
    }


def judge(score: Score, allowed: float, row: Row) -> Verdict:
    """Judge a score against its margin.

    allowed: accepted loss relative to the dense images; for a likeness to them, its worst accepted value.
    Undecided without the difference to the dense images, of cells that have images which dense lacks.
    """
    if score.difference is not None:
        return verdict(score.difference, score.better, -sign(score.better) * allowed)
    if score.facts.kind != "likeness":
        return "undecided"
    if score.value is not None and math.isinf(score.value):  # every image equals the dense one
        return "non-inferior"
    if score.per_image is None:
        return "undecided"
    return verdict(score_interval(score, row), score.better, allowed)


def _fronts(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.scores):
        for group in _ranked_groups(rows, name):
            for row, probability in zip(group, _front_probabilities(group, name), strict=False):
                found.setdefault(row.cell.id, {})[name] = float(probability)
    return found


def _ranked_groups(rows: Sequence[Row], name: str) -> list[list[Row]]:
    """Return groups of two or more cells of a baseline that have this score and a cost, except diagnoses and
    cells of other images than most."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        score = row.scores.get(name)
        if row.cell.role != "diagnosis" and row.cost_ratio and score is not None and score.value is not None:
            groups.setdefault(row.cell.dense, []).append(row)
    alike = map(_of_most_frequent_images, groups.values())
    return [group for group in alike if len(group) > 1]


def _of_most_frequent_images(group: Sequence[Row]) -> list[Row]:
    """Return the cells that have the images which most of the group have, of equally many the more images."""
    counts = Counter(row.keys for row in group)
    keys = max(counts, key=lambda keys: (counts[keys], len(keys)))
    return [row for row in group if row.keys == keys]


def _front_probabilities(group: Sequence[Row], name: str) -> Array:
    """Return the probability of each cell to be on the Pareto front, (k,); empty if it cannot be estimated.

    A likeness to the dense images has no value for the dense run itself. It then enters with an infinite
    score at cost 1, so that no cell of that cost or more is on the front.
    """
    replicates = resampled(group, name)
    if replicates is None or replicates.prompts < 2:
        return np.array([])
    quality = sign(group[0].scores[name].better) * replicates.drawn
    cost = cost_replicates(group, group[0].cost)
    likeness = group[0].scores[name].facts.kind == "likeness"
    if likeness and all(row.cell.role != "dense" for row in group):
        best = np.full((len(quality), 1), np.inf)
        quality, cost = np.hstack([quality, best]), np.hstack([cost, np.ones_like(best)])
    return membership(cost, quality)


def volumes(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the hypervolume of each series and its difference to that of step reduction, by score.

    The hypervolume is the best quality, above that of the worst cell, available within a budget, averaged
    over budgets from zero to the cost of the dense run. A cell of infinite quality, whose images are the
    dense ones, is left out.
    """
    records = []
    for name in dict.fromkeys(name for row in rows for name, s in row.scores.items() if not s.facts.hidden):
        for group in _ranked_groups(rows, name):
            group = [row for row in group if row.cell.role != "dense" and _is_finite(row.scores[name])]
            curve = [i for i, row in enumerate(group) if row.cell.role == "steps"]
            for label in dict.fromkeys(row.cell.series for row in group):
                own = [i for i, row in enumerate(group) if row.cell.series == label]
                records.append(_volume(group, name, label, own, curve))
    return [record for record in records if record]


def _is_finite(score: Score) -> bool:
    return score.value is not None and math.isfinite(score.value)


def _volume(
    group: Sequence[Row], name: str, label: str, own: list[int], curve: list[int]
) -> dict[str, object]:
    """Return one record of `volumes`. own, curve: places of the series and of step reduction in the group."""

    def area(cost: Array, quality: Array, columns: list[int] = own) -> Array:
        above = quality - quality.min(1, keepdims=True)  # relative to the worst cell of each replicate
        return hypervolume(cost[:, columns], above[:, columns], 0.0)

    def over_step_reduction(cost: Array, quality: Array) -> Array:
        return np.asarray(area(cost, quality) - area(cost, quality, curve))

    statistics: dict[str, Statistic] = {"hypervolume": area}
    if curve and own != curve:
        statistics["over_step_reduction"] = over_step_reduction
    record: dict[str, object] = {}
    for key, statistic in statistics.items():
        if (value := interval(statistic, group, name)) is not None:
            record |= _bounds(key, value)
    return {"score": name, "cells": label, **record} if record else {}


def _bounds(name: str, interval: Interval) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval.level else (None, None)
    return {name: interval.value, f"{name}_low": low, f"{name}_high": high}

"""What the table allows to say of each cell: differences that survive the number of comparisons, losses that
stay within their margins, places on the Pareto front."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fovea.eval import Score
from fovea.eval.decisions import Verdict, holm, verdict
from fovea.eval.front import hypervolume, membership
from fovea.eval.interval import Interval
from fovea.study.analysis.bootstrap import Array, drawn_costs, interval, resampled, sign
from fovea.study.analysis.row import Row, score_interval

Margins = Mapping[str, float]


def with_verdicts(rows: Sequence[Row], margins: Margins) -> list[Row]:
    """The rows with all of it. margins: of scores by name, the bracket may be left out."""
    compared = [row for row in rows if row.cell.role != "diagnosis"]
    differing = _family(compared, lambda row: {name: s.difference for name, s in row.scores.items()})
    gaining = _family(compared, lambda row: row.gain)
    fronts = _fronts(rows)
    return [
        replace(
            row,
            holm=differing.get(row.cell.id, {}),
            gain_holm=gaining.get(row.cell.id, {}),
            verdicts={} if row.cell.role in ("dense", "diagnosis") else _verdicts(row, margins),
            front=fronts.get(row.cell.id, {}),
        )
        for row in rows
    ]


def _family(
    rows: Sequence[Row], of: Callable[[Row], Mapping[str, Interval | None]]
) -> dict[str, dict[str, float]]:
    """Cell to score to the p-value adjusted for all cells and scores of the table."""
    known = {
        (row.cell.id, name): interval.p
        for row in rows
        for name, interval in of(row).items()
        if interval is not None and interval.p is not None
    }
    found: dict[str, dict[str, float]] = {}
    for (cell, name), p in holm(known).items():
        found.setdefault(cell, {})[name] = p
    return found


def margin(name: str, margins: Margins) -> float | None:
    """fd[emoji] by its own name, or else by fd."""
    return margins.get(name, margins.get(name.partition("[")[0]))


def _verdicts(row: Row, margins: Margins) -> dict[str, Verdict]:
    found = {name: (score, margin(name, margins)) for name, score in row.scores.items()}
    return {
        name: judged(score, allowed, row)
        for name, (score, allowed) in found.items()
        if allowed is not None and score.value is not None
    }


def judged(score: Score, allowed: float, row: Row) -> Verdict:
    """allowed: the loss to the dense images; of a score that is a likeness to them, its worst value."""
    if score.difference is not None:
        return verdict(score.difference, score.better, -sign(score.better) * allowed)
    if score.value is not None and math.isinf(score.value):  # every image is the dense one
        return "non-inferior"
    if score.per_image is None:
        return "undecided"
    return verdict(score_interval(score, row), score.better, allowed)


def _fronts(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name in {name: None for row in rows for name in row.scores}:
        for group in _rivals(rows, name):
            places = _places(group, name)
            for row, probability in zip(group, places, strict=False):
                found.setdefault(row.cell.id, {})[name] = float(probability)
    return found


def _rivals(rows: Sequence[Row], name: str) -> list[list[Row]]:
    """Cells of one baseline that have this score and a cost, and are there to be ranked."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        score = row.scores.get(name)
        if row.cell.role != "diagnosis" and row.cheaper and score is not None and score.value is not None:
            groups.setdefault(row.cell.dense, []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _places(group: Sequence[Row], name: str) -> Array:
    """Nothing is likelier than the dense images to themselves: a score that they have not is theirs by
    right, and what costs as much beside it is on no front."""
    both = resampled(group, name)
    if both is None or both.prompts < 2:
        return np.array([])
    quality = sign(group[0].scores[name].better) * both.drawn
    cost = drawn_costs(group, group[0].cost)
    if all(row.cell.role != "dense" for row in group):
        best = np.full((len(quality), 1), np.inf)
        quality, cost = np.hstack([quality, best]), np.hstack([cost, np.ones_like(best)])
    return membership(cost, quality)


def volumes(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The hypervolume of each method's cells and of step reduction, by score, and their difference: the best
    quality above the worst cell's to be had within a budget, averaged over budgets from nothing to dense."""
    out = []
    for name in {name: None for row in rows for name, s in row.scores.items() if not s.facts.hidden}:
        for group in _rivals(rows, name):
            group = [row for row in group if row.cell.role != "dense"]
            curve = [i for i, row in enumerate(group) if row.cell.role == "steps"]
            for label in {row.cell.series: None for row in group}:
                own = [i for i, row in enumerate(group) if row.cell.series == label]
                out.append(_volume(group, name, label, own, curve))
    return [record for record in out if record]


def _volume(
    group: Sequence[Row], name: str, label: str, own: list[int], curve: list[int]
) -> dict[str, object]:
    def area(spent: Array, quality: Array, columns: list[int] = own) -> Array:
        above = quality - quality.min(1, keepdims=True)  # of the worst cell, in each draw
        return hypervolume(spent[:, columns], above[:, columns], 0.0)

    def over(spent: Array, quality: Array) -> Array:
        return np.asarray(area(spent, quality) - area(spent, quality, curve))

    found = {"hypervolume": interval(area, group, name)}
    if curve and own != curve:
        found["over_step_reduction"] = interval(over, group, name)
    record: dict[str, object] = {}
    for key, value in found.items():
        record |= {} if value is None else _bounds(key, value)
    return {"score": name, "cells": label} | record if record else {}


def _bounds(name: str, interval: Interval) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval.level else (None, None)
    return {name: interval.value, f"{name}_low": low, f"{name}_high": high}

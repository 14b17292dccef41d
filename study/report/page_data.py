"""What the scripts of a report draw, as plain data: cells with their figures, curves, images, maps."""

import math
from collections.abc import Sequence
from typing import Any

from fovea.eval import Score
from fovea.eval.interval import Interval, Z
from fovea.study.analysis.row import Row
from fovea.study.analysis.speed import batches, contended, throttled
from fovea.study.config.prompts import Sample
from fovea.study.plan.plan import Plan
from fovea.study.report.curves import curves, mark
from fovea.study.report.page_maps import maps
from fovea.study.report.pictures import pictures, scope, shown
from fovea.study.report.style import COLOURS
from fovea.study.report.table import cells, figure, headline, short
from fovea.study.store import Store


def collected(plan: Plan, store: Store, rows: Sequence[Row]) -> dict[str, Any]:
    samples = shown(plan, store)
    head, *body = cells(rows)
    return {
        "cost": plan.settings.cost,
        "columns": head,
        "metrics": [_metric(score, head) for score in headline(rows)],
        "cells": [_cell(store, row, line, samples) for row, line in zip(rows, body, strict=True)],
        "series": _series(rows),
        "samples": [{"prompt": s.prompt.text, "seed": s.seed} for s in samples],
        "images": pictures(plan, store, samples),
        "scope": scope(plan, store, samples),
        "maps": maps(plan, store, samples),
        "best": best(rows),
    }


def best(rows: Sequence[Row]) -> str | None:
    """The cell that gains most over step reduction in the first score that anything gains in; else the last
    of the method's that has images; else the last at all."""
    for name in (score.name for score in headline(rows)):
        gained = [row for row in rows if name in row.gain]
        if gained:
            return max(gained, key=lambda row: row.gain[name].value).cell.id
    made = [row for row in rows if row.n]
    last = [row for row in made if row.cell.role == "method" and not row.cell.off] or made
    return last[-1].cell.id if last else None


def _metric(score: Score, head: Sequence[str]) -> dict[str, Any]:
    """columns: those of the table that are about it."""
    name = short(score.name)
    own = (f"{name} ↑", f"{name} ↓", f"gain {name}", f"margin {name}")
    return {
        "name": score.name,
        "title": score.title,
        "better": score.better,
        "columns": [i for i, text in enumerate(head) if text in own],
    }


def _cell(store: Store, row: Row, line: Sequence[str], samples: Sequence[Sample]) -> dict[str, Any]:
    """texts: the line of the table. near: of each sample its own score, where that is a likeness to dense."""
    return {
        "id": row.cell.id,
        "label": row.cell.label,
        "role": row.cell.role,
        "dense": row.cell.dense,
        "mark": mark(row),
        "n": row.n,
        "failed": row.failure is not None,
        "time": _bounds(row.speedup),
        "flops": [_finite(row.flops_ratio)] * 3 if row.flops_ratio else None,
        "seconds": _bounds(row.seconds),
        "scores": {name: _point(score) for name, score in row.scores.items()},
        "front": {name: round(share, 3) for name, share in row.front.items() if math.isfinite(share)},
        "texts": list(line),
        "near": {
            short(name): _each(row, score, samples)
            for name, score in row.scores.items()
            if score.facts.kind == "likeness" and not score.facts.hidden
        },
        "repetitions": _repetitions(store, row),
    }


def _each(row: Row, score: Score, samples: Sequence[Sample]) -> list[str | None]:
    own = dict(zip(row.keys, score.per_image or (), strict=False))
    return [figure(own[s.key]) if s.key in own else None for s in samples]


def _series(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of the plot: colour counts study.style.COLOURS, -1 is grey."""
    colour = {name: i for i, name in enumerate(COLOURS)}
    return [
        {
            "name": curve.name,
            "colour": colour.get(curve.colour, -1),
            "marker": curve.marker,
            "joined": curve.joined,
            "cells": [row.cell.id for row in curve.rows],
        }
        for curve in curves(rows)
    ]


def _repetitions(store: Store, row: Row) -> list[list[Any]]:
    """Seconds per image of every timed full batch, and what was amiss: throttled ones count nowhere."""
    records = store.samples(row.cell.id).only(row.keys)
    return [
        [
            round(b.seconds / b.size, 6),
            "throttled" if throttled(b) else "shared" if contended(b) else "",
        ]
        for b in batches(records, valid=False).values()
    ]


def _point(score: Score) -> list[float] | str | None:
    """Value and bounds of 95 %, of the difference to dense where images are paired, else of the score; as
    text where there is no place for it on an axis."""
    if score.value is None:
        return None
    if not math.isfinite(score.value):
        return "∞"
    low = high = Z * (score.se or 0)
    if score.difference is not None:
        low, high = (
            score.difference.value - score.difference.low,
            score.difference.high - score.difference.value,
        )
    return [
        score.value,
        *(x if math.isfinite(x) else score.value for x in (score.value - low, score.value + high)),
    ]


def _bounds(interval: Interval | None) -> list[float] | None:
    if interval is None:
        return None
    low, high = (x if math.isfinite(x) else interval.value for x in (interval.low, interval.high))
    return [interval.value, low, high]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

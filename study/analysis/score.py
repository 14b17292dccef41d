"""From stored images to rows: every metric anew, so that a finished study can be scored again without
generating."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fovea.eval import Samples, Score, require_equal_n
from fovea.eval.selftest import trusted
from fovea.study.analysis.gain import with_gain
from fovea.study.analysis.row import Record, Row, flops_ratio, mean_flops, no_op, relative, speedup
from fovea.study.analysis.speed import batches, seconds, speed
from fovea.study.analysis.verdict import with_verdicts
from fovea.study.config.instantiate import build
from fovea.study.floor import floor
from fovea.study.picture import pixels
from fovea.study.plan.cells import Cell
from fovea.study.plan.checks import keyed
from fovea.study.plan.plan import Plan
from fovea.study.store import Store

Metrics = Mapping[str, Callable[[Samples], list[Score]]]


def rows(plan: Plan, store: Store) -> list[Row]:
    """One row per cell, in the plan's order, with what is there."""
    metrics = build_metrics(plan)
    keys = [s.key for s in plan.samples]
    records = {cell.id: _present(store.samples(cell.id), keys) for cell in plan.cells}
    found = with_gain([_row(plan, store, cell, records, metrics) for cell in plan.cells], plan.settings.cost)
    complete = [row for row in found if row.n == row.planned]
    require_equal_n([score for row in complete for score in row.scores.values()])
    found = with_verdicts(found, plan.config["eval"].get("margin") or {})
    return [replace(row, floor=floor(store, row.cell)) if row.cell.role == "dense" else row for row in found]


def build_metrics(plan: Plan) -> Metrics:
    """Each as it is, or, where it fails its self-test, as scores that say so."""
    built = {name: build(node, f"metric.{name}", "fovea.eval") for name, node in plan.metrics.items()}
    return {name: metric if plan.random_weights else trusted(metric) for name, metric in built.items()}


def stored(plan: Plan, store: Store, cell: Cell) -> Samples:
    """The images of the plan that a cell has."""
    return _samples(plan, store, cell.id, _present(store.samples(cell.id), [s.key for s in plan.samples]))


def _present(records: Mapping[str, Record], keys: Sequence[str]) -> dict[str, Record]:
    return {key: records[key] for key in keys if key in records}


def _row(
    plan: Plan, store: Store, cell: Cell, records: Mapping[str, Mapping[str, Record]], metrics: Metrics
) -> Row:
    mine, dense = records[cell.id], records[cell.dense]
    known = store.described(cell.id)
    failures = store.failures(cell.id) if len(mine) < len(plan.samples) else []
    memory = [b["memory"] for b in batches(mine).values() if b["memory"] is not None]
    return Row(
        cell,
        n=len(mine),
        planned=len(plan.samples),
        seconds=seconds(mine),
        speedup=speedup(dense, mine),
        flops=mean_flops(mine),
        counted=known["flops"] / known["flops_closed"] if known.get("flops_closed") else None,
        flops_ratio=flops_ratio(dense, mine),
        memory=max(memory, default=None),
        scores=_scores(plan, store, cell, mine, dense, metrics) if mine else {},
        failure=f"{failures[-1]['type']}: {failures[-1]['message']}"
        if failures
        else no_op(cell, dense, mine),
        keys=tuple(mine),
        prompts=tuple(r["prompt"] for r in mine.values()),
        relative=relative(dense, mine, plan.settings.cost),
        speed=speed(mine, known.get("cold"), seconds(dense) if cell.role != "dense" else None),
    )


def _scores(
    plan: Plan,
    store: Store,
    cell: Cell,
    mine: Mapping[str, Record],
    dense: Mapping[str, Record],
    metrics: Metrics,
) -> dict[str, Score]:
    samples = _samples(plan, store, cell.id, mine)
    if cell.id != cell.dense and set(mine) <= set(dense):
        samples = samples.against(_samples(plan, store, cell.dense, dense))
    found = [(name, score) for name, metric in metrics.items() for score in metric(samples)]
    return {s.name: replace(s, remedy=s.remedy and keyed(name, s.remedy)) for name, s in found}


def _samples(plan: Plan, store: Store, cell: str, records: Mapping[str, Record]) -> Samples:
    images = np.stack([pixels(store.image(cell, key)) for key in records])  # (n, H, W, 3)
    prompts = [r["prompt"] for r in records.values()]
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return Samples(channels_first, prompts, list(records), random_weights=plan.random_weights)


def per_sample(plan: Plan, store: Store, found: Sequence[Row]) -> list[dict[str, Any]]:
    """The data behind the table: one record per image."""
    out = []
    for row in found:
        records = _present(store.samples(row.cell.id), [s.key for s in plan.samples])
        scores = {name: s.per_image for name, s in row.scores.items() if s.per_image is not None}
        for i, (key, r) in enumerate(records.items()):
            kept = {k: r[k] for k in ("prompt_id", "prompt", "seed", "noise", "random_weights")}
            batch = r["batch"]
            times = {k: batch[k] / batch["size"] for k in ("seconds", "encode_seconds", "decode_seconds")}
            where = {"batch": batch["id"], "batch_size": batch["size"]}
            where |= {k: r[k] for k in ("tokens", "blocks", "flops")}
            values = {name: values[i] for name, values in scores.items()}
            out.append(
                {"cell": row.cell.id, "label": row.cell.label, "key": key} | kept | times | where | values
            )
    return out

"""Score the stored images of a study and build its table rows.

A finished study can be scored again without generating images; per-image results are cached (cache.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fovea.eval import Samples, Score
from fovea.eval.facts import Facts
from fovea.eval.samples import PerImage
from fovea.eval.selftest import needed, promised, scored, trusted
from fovea.study.analysis.cache import StoredImages
from fovea.study.analysis.gain import with_gain
from fovea.study.analysis.row import Row, flops_ratio, mean_flops, no_op, relative, speedup
from fovea.study.analysis.speed import batches, invalid, pairs, seconds, speed
from fovea.study.analysis.verdict import with_verdicts
from fovea.study.config.instantiate import instantiate
from fovea.study.files import read_json, write_json
from fovea.study.plan.cells import FITTED, Cell
from fovea.study.plan.plan import Plan, remedied
from fovea.study.records import Finished
from fovea.study.store import Store

Metrics = Mapping[str, Callable[[Samples], list[Score]]]
Wanted = Sequence[PerImage]
Floor = Mapping[str, Mapping[str, Score]]  # change -> score by name
FLOOR = "floor.json"


def rows(plan: Plan, store: Store) -> list[Row]:
    """Return one row per cell, in the plan's order, from the images stored so far."""
    metrics = build_metrics(plan)
    wanted = [] if plan.random_weights else needed(metrics.values())
    found = with_gain([_row(plan, store, cell, metrics, wanted) for cell in plan.cells], plan.settings.cost)
    found = with_verdicts(found, plan.config["eval"].get("margin") or {})
    return [
        replace(row, floor={**floor(store, row.cell.id), **fitting_floor(plan, store, row.cell, metrics)})
        if row.cell.role == "dense"
        else row
        for row in found
    ]


def fitting_floor(plan: Plan, store: Store, cell: Cell, metrics: Metrics) -> Floor:
    """Compare a dense cell with the study's dense cell whose model has the default `FITTED` settings.

    Return its likeness to that cell, keyed by the settings that differ (such as quantisation or compilation);
    empty if the study has no such cell.
    """
    plain = next((c for c in plan.cells if c.role == "dense" and c.model == cell.model | FITTED), None)
    if plain is None or plain.id == cell.id:
        return {}
    own, other = stored(plan, store, cell.id), stored(plan, store, plain.id)
    if not own.n or not {*own.keys} <= {*other.keys}:
        return {}
    samples = own.against(other)
    found = [score for m in metrics.values() if _measures_likeness(m) for score in scored(m, samples)]
    changed = [f"{key} {value}" for key, value in FITTED.items() if cell.model[key] != value]
    return {", ".join(changed): {s.name: s for s in found if s.facts.kind == "likeness"}}


def _measures_likeness(metric: Any) -> bool:
    return any(facts.kind == "likeness" for facts in promised(metric).values())


def build_metrics(plan: Plan) -> Metrics:
    """Build the plan's metrics; one that fails its self-test is replaced by scores that report the failure.

    With random weights no self-test runs, as no metric will be computed.
    """
    built = {name: instantiate(node, f"metric.{name}", "fovea.eval") for name, node in plan.metrics.items()}
    return {name: metric if plan.random_weights else trusted(metric) for name, metric in built.items()}


def stored(plan: Plan, store: Store, cell: str) -> Samples:
    """Return the images of the plan that a cell has."""
    records = store.samples(cell).only(plan.keys)
    prompts = records.column("prompt").tolist()
    images = StoredImages(store, cell, records)
    return Samples(images, prompts, list(records), random_weights=plan.random_weights)


def _row(plan: Plan, store: Store, cell: Cell, metrics: Metrics, wanted: Wanted) -> Row:
    mine, dense = (store.samples(name).only(plan.keys) for name in (cell.id, cell.dense))
    memory = [b.memory for b in batches(mine).values() if b.memory is not None]
    return Row(
        cell,
        n=len(mine),
        planned=len(plan.samples),
        seconds=seconds(mine),
        speedup=speedup(dense, mine),
        flops=mean_flops(mine),
        counted=mine.flops.counted / mine.flops.closed if mine.flops and mine.flops.closed else None,
        flops_ratio=flops_ratio(dense, mine),
        memory=max(memory, default=None),
        scores=_scores(cell, _beside_dense(plan, store, cell), metrics, wanted) if mine and metrics else {},
        failure=_unfinished(mine, len(plan.samples)) or no_op(cell, dense, mine),
        keys=tuple(mine),
        prompts=tuple(mine.column("prompt")),
        relative=relative(dense, mine, plan.settings.cost),
        speed=speed(mine, dense if cell.role != "dense" else None),
    )


def _unfinished(mine: Finished, planned: int) -> str | None:
    """Return why there are fewer images than planned, or None. A failure is the reason unless batches were
    made after it."""
    if len(mine) == planned:
        return None
    if mine.failures and mine.failures[-1].time >= max((b.time for b in mine.timings), default=""):
        return f"{mine.failures[-1].type}: {mine.failures[-1].message}"
    return f"incomplete: {len(mine)} of {planned} images are there"


def _beside_dense(plan: Plan, store: Store, cell: Cell) -> Samples:
    """Return the images that a cell has, paired with the dense ones if all of those are there."""
    own, dense = (stored(plan, store, name) for name in (cell.id, cell.dense))
    paired = cell.id != cell.dense and {*own.keys} <= {*dense.keys}
    return own.against(dense) if paired else own


def _scores(cell: Cell, samples: Samples, metrics: Metrics, wanted: Wanted) -> dict[str, Score]:
    if samples.baseline:
        samples.baseline.compute([what for what in wanted if not what.paired])
    samples.compute(wanted)
    found = [(name, score) for name, metric in metrics.items() for score in scored(metric, samples)]
    if cell.another_image:
        found = [(name, without_likeness(score, cell)) for name, score in found]
    return {s.name: replace(s, remedy=s.remedy and remedied(name, s.remedy)) for name, s in found}


def without_likeness(score: Score, cell: Cell) -> Score:
    """Mark a likeness score unavailable for a cell whose images are not meant to equal the dense ones."""
    if score.facts.kind != "likeness":
        return score
    why = f"of {cell.label}, another image of the prompt: no likeness to the dense one judges it"
    return Score(score.name, score.facts, None, None, score.n, unavailable=why)


def per_sample(plan: Plan, store: Store, found: Sequence[Row]) -> pa.Table:
    """Return the data behind the table, one row per image and cell."""
    tables = []
    for row in found:
        mine, dense = (store.samples(name).only(plan.keys) for name in (row.cell.id, row.cell.dense))
        tables.append(_images(mine, row, _times(mine, dense)))
    return pa.concat_tables(tables, promote_options="default")


def _times(records: Finished, dense: Finished) -> dict[str, np.ndarray]:
    """Return seconds per image of the calls that the row's times are of, for each image; NaN where its batch
    has none that counts. dense_seconds: of the dense call that the batch's speedup is over."""
    last, compared = records.batches, pairs(dense, records)
    counted = {name: call for name, call in last.items() if not invalid(call)}
    calls = {
        "seconds": {name: call.seconds / call.size for name, call in counted.items()},
        "dense_seconds": {name: other.seconds / other.size for name, (other, _) in compared.items()},
    }
    calls |= {
        key: {name: getattr(call, key) / call.size for name, call in last.items()}
        for key in ("encode_seconds", "decode_seconds")
    }
    own = records.of_batch("id").tolist()
    return {key: np.array([of.get(name, math.nan) for name in own]) for key, of in calls.items()}


def _images(records: Finished, row: Row, times: Mapping[str, np.ndarray]) -> pa.Table:
    n, size = len(records), records.of_batch("size")
    columns: dict[str, Any] = {"cell": [row.cell.id] * n, "label": [row.cell.label] * n}
    columns |= {key: records.column(key) for key in ("key", "prompt_id", "prompt", "seed", "noise")}
    columns["random_weights"] = records.of_batch("random_weights")
    columns |= times
    columns |= {"batch": records.of_batch("id"), "batch_size": size}
    columns |= {key: records.column(key) for key in ("tokens", "blocks", "flops")}
    columns |= {name: s.per_image for name, s in row.scores.items() if s.per_image is not None}
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def floor(store: Store, cell: str) -> Floor:
    """Read the lossless floor of a dense cell, as measured by scripts/floor.py; empty if it was not.

    The floor is how far the images move by a change that is no method: another dtype or batch size, or, as
    the other extreme, another seed.
    """
    known = (read_json(store.folder / FLOOR) or {}).get(cell, {})
    return {change: {s["name"]: _from_data(s) for s in scores} for change, scores in known.items()}


def save_floor(store: Store, cell: str, found: Floor) -> None:
    known = read_json(store.folder / FLOOR) or {}
    changes = {change: [_as_data(s) for s in scores.values()] for change, scores in found.items()}
    write_json(store.folder / FLOOR, known | {cell: known.get(cell, {}) | changes})


def _as_data(score: Score) -> dict[str, Any]:
    """Return a score as JSON data, with an infinite value (PSNR of identical images) as text."""
    value = score.value if score.value is None or math.isfinite(score.value) else str(score.value)
    kept = ("name", "se", "n", "unavailable", "remedy")
    return {"value": value, "facts": score.facts.plain()} | {key: getattr(score, key) for key in kept}


def _from_data(plain: Mapping[str, Any]) -> Score:
    known = dict(plain)
    value, facts = known.pop("value"), Facts(**known.pop("facts"))
    return Score(value=None if value is None else float(value), facts=facts, **known)

"""Measure the lossless floor of a study: how far its dense images change with another dtype, with batches of
one, without what makes the model fit or run faster (quantised weights, compiled blocks), and, as the other
extreme, with other seeds. Uses every metric of the study; the table's notes then show the result.

    python -m scripts.floor model=lumina_tiny n=24 eval=emoji

takes the same arguments as run.py, and writes floor.json and the images into the same study's folder. If
images have a PSNR of 40 dB between float32 and bfloat16, rounding alone changes them this much, and a method
above 40 dB is lossless.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fovea.study.analysis.score import save_floor
from fovea.study.config.errors import Refused
from fovea.study.plan.cells import FITTED, Cell
from fovea.study.plan.plan import Plan, make
from fovea.study.run.launchers import Local
from fovea.study.run.progress import Progress
from fovea.study.store import Store
from fovea.study.workers import Worker

OTHER = {"float32": "bfloat16", "bfloat16": "float32", "float16": "float32"}
FURTHER = 10**6  # offset to seeds that the study does not use


def changes(plan: Plan, overrides: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each change, in words and as overrides."""
    from fovea.study.config.instantiate import instantiate

    _, dtype = instantiate(dense(plan).model, "model", "fovea.models").device_and_dtype()
    yield f"dtype {OTHER[dtype]}", [f"model.dtype={OTHER[dtype]}"]
    for key, plain in FITTED.items():
        if dense(plan).model[key] != plain:
            yield f"{key} {plain}", [f"model.{key}={plain}"]
    if plan.settings.batch > 1:
        yield "batches of 1", ["batch=1"]
    seeds = [seed + FURTHER for seed in plan.settings.seeds]
    yield "other seeds", [f"seeds={seeds}".replace(" ", "")]


def dense(plan: Plan) -> Cell:
    return next(cell for cell in plan.cells if cell.role == "dense")


def made(plan: Plan, store: Store, worker: Worker, progress: Progress) -> Any:
    """Return the dense cell's samples, generating those that are missing."""
    from fovea.study.analysis.score import stored

    Local().make(replace(plan, cells=[dense(plan)]), store, worker, progress)
    found = store.samples(dense(plan).id)
    if len(found.only(plan.keys)) < len(plan.samples):
        raise Refused(f"the dense run failed: {found.failures[-1].message}")
    return stored(plan, store, dense(plan).id)


def main(overrides: list[str]) -> Mapping[str, Any]:
    from fovea.study.analysis.score import build_metrics

    plan = make(overrides)
    store, found = Store(plan.folder), {}
    metrics = build_metrics(plan)
    with store.at_work() as worker, Progress() as progress:
        own = made(plan, store, worker, progress)
        for change, more in changes(plan, overrides):
            progress.say(f"dense with {change}")
            key = more[0].partition("=")[0]
            rest = [given for given in overrides if given.partition("=")[0] != key]
            other = made(make([*rest, *more]), store, worker, progress)
            beside = replace(other, keys=own.keys).against(own)  # pair by prompt, even where seeds differ
            found[change] = {s.name: s for metric in metrics.values() for s in metric(beside)}
        save_floor(store, dense(plan).id, found)
    for change, scores in found.items():
        values = [f"{s.name} {s.value:.4g} ± {s.se:.2g}" for s in scores.values() if s.value is not None]
        print(f"{change}: {', '.join(values)}")
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"refused: {refusal}")

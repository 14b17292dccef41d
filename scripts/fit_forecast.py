"""Timings of a finished study beside their forecasts, and the losses of the GPU that fit them.

    python -m scripts.fit_forecast results/NAME --on h100

Writes forecast.json into the study's folder: of each cell what was measured, what the data sheet's defaults
forecast, and what the fitted losses do, in seconds per image; with the device, its driver and clocks, and the
commit. The fit takes the logarithms of the times, so that a short run counts as much as a long one; it needs
three timed cells. A share of 1 is at its bound: these runs tell nothing of that loss. What was only warmed
up, before its time was over, stands there by its first call.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from fovea.models.gpu import Gpu, Operation
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.files import write_json
from fovea.study.plan.plan import planned
from fovea.study.run.forecast import forecasts
from fovea.study.store import Store
from fovea.study.stored import Stored, find

OF_STUDY = ("machine", "commit", "dirty", "command", "time")
CLOCKS = ("clock_sm_mhz", "clock_memory_mhz", "throttled")


def fit(gpu: Gpu, runs: Sequence[tuple[Mapping[Operation, int], float]]) -> Gpu:
    """The losses with which the GPU takes the measured seconds for the operations of each run. ValueError for
    fewer runs than the three losses."""
    if len(runs) < 3:
        raise ValueError(f"{len(runs)} timed cells: three losses need three at least")
    ops = [np.array([(op.flops, op.bytes, count) for op, count in found.items()]).T for found, _ in runs]
    measured = np.log([seconds for _, seconds in runs])

    def off(losses: np.ndarray) -> np.ndarray:
        compute, traffic, launch = losses
        flops, moved = gpu.tflops * 1e12 * compute, gpu.bandwidth * 1e9 * traffic
        times = [(np.maximum(f / flops, b / moved) + launch * 1e-6) @ count for f, b, count in ops]
        return np.log(times) - measured

    start = (gpu.compute, gpu.traffic, max(gpu.launch, 1.0))
    found = least_squares(off, start, bounds=((1e-6, 1e-6, 0), (1, 1, math.inf)), x_scale=start)
    compute, traffic, launch = map(float, found.x)
    return replace(gpu, compute=compute, traffic=traffic, launch=launch)


def measured(study: Stored) -> dict[str, float]:
    """Seconds per image of each cell by its label, the median over its full batches: of the report, since a
    cell has another number on another machine."""
    found: dict[str, dict[str, float]] = {}
    size = max((sample["batch_size"] for sample in study.samples), default=0)
    for sample in study.samples:
        if sample["batch_size"] == size:
            found.setdefault(sample["label"], {})[sample["batch"]] = sample["seconds"]
    return {label: float(np.median([*batches.values()])) for label, batches in found.items()}


def first_calls(study: Stored) -> dict[str, float]:
    """Seconds per image of each cell's warm-up, by its label, where its records are there."""
    store, cells = Store(study.folder), study.provenance["cells"]
    found = {known["label"]: store.samples(cell).warm_up for cell, known in cells.items()}
    return {label: call.seconds / call.size for label, call in found.items() if call}


def clocks(study: Stored) -> list[dict[str, Any]]:
    """Of the batches whose records and images are there."""
    store = Store(study.folder)
    batches = (b for cell in study.provenance["cells"] for b in store.samples(cell).batches.values())
    return [{key: batch.state[key] for key in CLOCKS if key in batch.state} for batch in batches]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", help="folder of a study, of this machine or another")
    parser.add_argument("--on", required=True, help="its GPU: a file of conf/on")
    args = parser.parse_args(arguments)
    study = find(args.study, args.study)
    record = study.provenance
    plan = planned(study.folder, record, record["config"])
    gpu = instantiate(whole(load([f"on={args.on}"]))["on"], "on", "fovea.models")
    seconds, first = measured(study), first_calls(study)
    known = [cell for cell in plan.cells if cell.label in seconds or cell.label in first]
    if not known:
        raise Refused(f"{args.study}: no cell of it was timed")
    forecast = forecasts(replace(plan, gpu=gpu, cells=known))
    known = [cell for cell in known if not forecast[cell.id].guessed]  # what skips by values has no one cost
    size = len(plan.samples[: plan.settings.batch])
    timed = [cell for cell in known if cell.label in seconds]
    fitted = None
    if len(timed) > 2:
        fitted = fit(gpu, [(forecast[c.id].operations, seconds[c.label] * size) for c in timed])
    rows = [
        {
            "label": cell.label,
            "measured": seconds.get(cell.label),
            "first call": first.get(cell.label),
            "forecast": gpu.seconds(forecast[cell.id].operations) / size,
            "fitted": fitted and fitted.seconds(forecast[cell.id].operations) / size,
        }
        for cell in known
    ]
    losses = {name: getattr(fitted, name) for name in ("compute", "traffic", "launch")} if fitted else None
    found = {"on": args.on, "losses": losses, "rows": rows, "states": clocks(study)}
    write_json(study.folder / "forecast.json", found | {key: record.get(key) for key in OF_STUDY})
    for row in rows:
        told = (f"{key} {value:.4g} s" for key, value in row.items() if isinstance(value, float))
        print(f"{row['label']:30} " + "  ".join(told))
    print(" ".join(f"on.{name}={value:.3g}" for name, value in (losses or {}).items()) or "too few for a fit")
    return found


if __name__ == "__main__":
    main()

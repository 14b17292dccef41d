"""Compare the timings of a finished study with their forecasts, and fit the GPU's losses to them.

    python -m scripts.fit_forecast results/NAME --on h100

Writes forecast.json into the study's folder: for each cell the measured seconds per image, the forecast with
the default losses and the forecast with the fitted ones, plus the device, its driver and clocks, and the
commit. The fit minimises errors of log times, so that short runs count as much as long ones, and needs three
timed cells. A fitted share of 1 is at its bound: the runs do not determine that loss. A cell that was only
warmed up before its time limit is listed with its first call.
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
from fovea.study.files import read_json, write_json
from fovea.study.plan.plan import planned
from fovea.study.run.forecast import forecasts
from fovea.study.store import Store
from fovea.study.stored import Stored, find

OF_STUDY = ("machine", "commit", "dirty", "command", "time")
CLOCKS = ("clock_sm_mhz", "clock_memory_mhz", "throttled")


def fit(gpu: Gpu, runs: Sequence[tuple[Mapping[Operation, int], float]]) -> Gpu:
    """Fit the GPU's losses. runs: the operations of each run and its measured seconds. Raises ValueError for
    fewer than three runs, because there are three losses."""
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
    """Return seconds per image by cell label, the median over full batches. Read from the report and by
    label, because cell ids differ between machines."""
    found: dict[str, dict[str, float]] = {}
    size = max((sample["batch_size"] for sample in study.samples), default=0)
    for sample in study.samples:
        if sample["batch_size"] == size and sample["seconds"] is not None:
            found.setdefault(sample["label"], {})[sample["batch"]] = sample["seconds"]
    return {label: float(np.median([*batches.values()])) for label, batches in found.items()}


def first_calls(study: Stored) -> dict[str, float]:
    """Return seconds per image of each cell's warm-up, by label, for cells whose records exist."""
    store, cells = Store(study.folder), study.provenance["cells"]
    found = {known["label"]: store.samples(cell).warm_up for cell, known in cells.items()}
    return {label: call.seconds / call.size for label, call in found.items() if call}


def earlier(study: Stored) -> dict[str, Any]:
    """Return the study's forecast.json of before; empty if there is none or it is of another run."""
    found = read_json(study.folder / "forecast.json") or {}
    return found if all(found.get(key) == study.provenance.get(key) for key in ("time", "command")) else {}


def clocks(study: Stored) -> list[dict[str, Any]]:
    """Return the GPU clocks of the batches whose records and images exist."""
    store = Store(study.folder)
    batches = (b for cell in study.provenance["cells"] for b in store.samples(cell).batches.values())
    return [{key: batch.state[key] for key in CLOCKS if key in batch.state} for batch in batches]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", help="folder of a study, from this machine or another")
    parser.add_argument("--on", required=True, help="its GPU: a file of conf/on")
    args = parser.parse_args(arguments)
    study = find(args.study, args.study)
    record = study.provenance
    plan = planned(study.folder, record, record["config"])
    gpu = instantiate(whole(load([f"on={args.on}"]))["on"], "on", "fovea.models")
    before = earlier(study)
    kept = {row["label"]: row["first call"] for row in before.get("rows", []) if row["first call"]}
    seconds, first = measured(study), kept | first_calls(study)
    known = [cell for cell in plan.cells if cell.label in seconds or cell.label in first]
    if not known:
        raise Refused(f"{args.study}: no cell of it was timed")
    forecast = forecasts(replace(plan, gpu=gpu, cells=known))
    known = [cell for cell in known if not forecast[cell.id].guessed]  # their cost depends on the values
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
    found = {
        "on": args.on,
        "losses": losses,
        "rows": rows,
        "states": clocks(study) or before.get("states", []),
    }
    write_json(study.folder / "forecast.json", found | {key: record.get(key) for key in OF_STUDY})
    for row in rows:
        values = (f"{key} {value:.4g} s" for key, value in row.items() if isinstance(value, float))
        print(f"{row['label']:30} " + "  ".join(values))
    print(" ".join(f"on.{name}={value:.3g}" for name, value in (losses or {}).items()) or "too few for a fit")
    return found


if __name__ == "__main__":
    main()

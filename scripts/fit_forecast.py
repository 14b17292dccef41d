"""Timings of a finished study beside their forecasts, and the losses of the GPU that fit them.

    python -m scripts.fit_forecast results/NAME --on h100

Writes forecast.json into the study's folder: of each cell what was measured, what the data sheet's defaults
forecast, and what the fitted losses do, in seconds per image; with the device, its driver and clocks, and the
commit. The fit takes the logarithms of the times, so that a short run counts as much as a long one.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from fovea.models.gpu import Gpu, Operation
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.files import write_json
from fovea.study.plan.plan import Plan, planned
from fovea.study.run.forecast import forecasts
from fovea.study.store import Store
from fovea.study.stored import find

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


def measured(plan: Plan, store: Store) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Seconds per image of each cell, the median over its full batches; and how the clocks were."""
    found, states = {}, []
    for cell in plan.cells:
        batches = store.samples(cell.id).batches.values()
        size = max((batch.size for batch in batches), default=0)
        full = [batch for batch in batches if batch.size == size]
        states += [{key: batch.state[key] for key in CLOCKS if key in batch.state} for batch in full]
        if full:
            found[cell.id] = float(np.median([batch.seconds / batch.size for batch in full]))
    return found, states


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", help="folder of a finished study")
    parser.add_argument("--on", required=True, help="its GPU: a file of conf/on")
    args = parser.parse_args(arguments)
    record = find(args.study, args.study).provenance
    plan = planned(Path(args.study), record, record["config"])
    gpu = instantiate(whole(load([f"on={args.on}"]))["on"], "on", "fovea.models")
    seconds, states = measured(plan, Store(plan.folder))
    known = [cell for cell in plan.cells if cell.id in seconds]
    if len(known) < 3:
        raise Refused(f"{args.study}: {len(known)} timed cells; a fit needs three at least")
    forecast = forecasts(replace(plan, gpu=gpu, cells=known))
    known = [cell for cell in known if not forecast[cell.id].guessed]  # what skips by values has no one cost
    size = len(plan.samples[: plan.settings.batch])
    runs = [(forecast[cell.id].operations, seconds[cell.id] * size) for cell in known]
    fitted = fit(gpu, runs)
    rows = [
        {
            "label": cell.label,
            "measured": time / size,
            "forecast": gpu.seconds(operations) / size,
            "fitted": fitted.seconds(operations) / size,
        }
        for cell, (operations, time) in zip(known, runs, strict=True)
    ]
    losses = {name: getattr(fitted, name) for name in ("compute", "traffic", "launch")}
    found = {"on": args.on, "losses": losses, "rows": rows, "states": states}
    write_json(plan.folder / "forecast.json", found | {key: record.get(key) for key in OF_STUDY})
    for row in rows:
        print(f"{row['label']:30} " + "  ".join(f"{key} {row[key]:.4g} s" for key in [*row][1:]))
    print(" ".join(f"on.{name}={value:.3g}" for name, value in losses.items()))
    return found


if __name__ == "__main__":
    main()

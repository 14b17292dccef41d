"""Measure how long a large study takes to open and to aggregate, on synthetic records.

    python -m scripts.benchmark_store --samples 1000000 --cells 10 --folder FOLDER

writes the records, unless an earlier start has, then measures each step in its own process:

    lines      read all lines as a run leaves them, without an index
    index      write the index of every cell
    open       find which samples of every cell are finished
    aggregate  compute the rows of the table and the table of samples, without metrics

Images are hard links to a few files of one picture, so that sizes and names are as in a study. A million
samples in 10 cells took 22, 20, 4.0 and 25 CPU seconds in these steps, and at most 1.4 GiB."""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np

from fovea.study.config.prompts import Prompt, Sample
from fovea.study.config.schema import Settings
from fovea.study.picture import png
from fovea.study.plan.cells import Cell
from fovea.study.plan.fingerprint import digest
from fovea.study.plan.plan import Plan
from fovea.study.record_files import line
from fovea.study.records import BatchRecord, CellRecord, FlopsRecord, ImageRecord
from fovea.study.store import Store

BATCH = 4
LINKS = 60_000  # per file; some file systems limit them to 65,000
STEPS = ("lines", "index", "open", "aggregate")


def planned(folder: Path, samples: int, cells: int) -> Plan:
    """Return a plan of one dense cell and method cells, with the samples divided among them."""
    each = samples // cells
    drawn = [
        Sample(
            sha256(f"0\nprompt {i}".encode()).hexdigest()[:16], Prompt(str(i), f"a picture of {i} foxes"), 0
        )
        for i in range(each)
    ]
    ids = [digest(f"cell {i}") for i in range(cells)]
    found = [
        Cell(
            name,
            f"ras ratio={i / cells:.3g}" if i else "dense",
            "method" if i else "dense",
            "ras" if i else "dense",
            {"path": "none", "height": 1024, "width": 1024, "steps": 28},
            {"_target_": "fovea.methods.RAS" if i else "fovea.methods.Baseline", "steps": 28},
            {"method.ratio": i / cells} if i else {},
            ids[0],
            False,
            {},
        )
        for i, name in enumerate(ids)
    ]
    settings = Settings(prompts="made up", name=folder.name, results=str(folder.parent), n=each)
    config = {"metric": {}, "eval": {}, "n": each}
    return Plan(settings, config, folder.name, found, drawn, {}, False, {})


def write_records(plan: Plan, store: Store) -> None:
    picture = png(np.zeros((64, 64, 3), np.uint8), False)
    chance = random.Random(0)
    for cell in plan.cells:
        store.describe(CellRecord.of(cell))
        lines = [line(FlopsRecord(cell=cell.id, images=4, counted=4 * 10**13, closed=4 * 10**13))]
        share = 0.5 if cell.id != cell.dense else 1.0
        source, file = Path(), {}
        for first in range(0, len(plan.samples), BATCH):
            batch = plan.samples[first : first + BATCH]
            if first % (LINKS // BATCH * BATCH) == 0:
                source = store.cell(cell.id) / f"picture {first}.png"
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_bytes(picture)
                file = {"sha256": sha256(picture).hexdigest(), "bytes": len(picture)}
                file["modified"] = source.stat().st_mtime_ns
            for s in batch:
                place = store.image(cell.id, s.key)
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.link(source, place)
            lines.append(line(_batch(cell, batch, store.session, share * chance.uniform(9, 10), share, file)))
        records = store.cell(cell.id) / "records" / f"{store.session}.jsonl"
        records.parent.mkdir(exist_ok=True)
        records.write_bytes(b"".join(lines))


def _batch(
    cell: Cell, batch: list[Sample], session: str, seconds: float, share: float, file: dict
) -> BatchRecord:
    work = {"tokens": 28 * 4096 * share, "blocks": 28.0 * 24, "flops": int(10**13 * share)}
    images = [
        ImageRecord(
            key=s.key,
            prompt_id=s.prompt.id,
            prompt=s.prompt.text,
            seed=s.seed,
            noise=s.key,
            **work,
            **file,
        )
        for s in batch
    ]
    state = {
        "joules": 1000.0,
        "clock_sm_mhz": 1410,
        "power_w": 300.0,
        "temperature_c": 60,
        "throttled": False,
    }
    return BatchRecord(
        cell=cell.id,
        id=digest([s.key for s in batch]),
        size=len(batch),
        session=session,
        device="made up",
        time="2026-01-01T00:00:00+00:00",
        seconds=seconds,
        encode_seconds=0.1,
        decode_seconds=0.2,
        memory=10**10,
        memory_process=10**10,
        memory_since_start=False,
        state=state,
        random_weights=False,
        images=tuple(images),
    )


def measured(step: str, plan: Plan, store: Store) -> dict[str, float | int | str]:
    """Run one step; return its wall and CPU seconds and the peak memory of this process."""
    if step == "aggregate":
        from fovea.study.analysis.score import per_sample, rows  # importing is not timed
    else:
        import pyarrow.compute  # noqa: F401
    start, spent = time.perf_counter(), time.process_time()
    if step == "lines":
        found = sum(len(store.records(cell.id)) for cell in plan.cells)
    elif step == "index":
        store.index(cell.id for cell in plan.cells)
        found = len(list(store.folder.glob("cells/*/records.parquet")))
    elif step == "open":
        keys = set(plan.keys)
        found = sum(len(keys & store.samples(cell.id).keys()) for cell in plan.cells)
    else:
        table = rows(plan, store)
        found = len(per_sample(plan, store, table))
    return {
        "step": step,
        "found": found,
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - spent, 2),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--step", choices=STEPS)
    args = parser.parse_args()
    plan = planned(args.folder, args.samples, args.cells)
    store = Store(plan.folder)
    if args.step:
        print(json.dumps(measured(args.step, plan, store)))
        return
    if not list(args.folder.glob("cells/*/records/*.jsonl")):
        write_records(plan, store)
    for index in args.folder.glob("cells/*/records.parquet"):
        index.unlink()
    for step in STEPS:
        subprocess.run(
            [sys.executable, "-m", "scripts.benchmark_store", *sys.argv[1:], "--step", step], check=True
        )


if __name__ == "__main__":
    main()

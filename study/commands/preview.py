"""plan=true: the cells, what is done, how long the rest takes. Nothing is made, not even a folder."""

import json
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.run.progress import clock
from fovea.study.store import Store


def preview(plan: Plan) -> int:
    store = Store(plan.folder)
    done = {cell.id: len({s.key for s in plan.samples} & set(store.samples(cell.id))) for cell in plan.cells}
    cost = {cell.id: known_cost(Path(plan.settings.results), cell) for cell in plan.cells}
    left = {cell.id: len(plan.samples) - done[cell.id] for cell in plan.cells}
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("cell", "id", "done", "s/image", "time left"):
        table.add_column(name, justify="left" if name in ("cell", "id") else "right")
    for cell in plan.cells:
        each = cost[cell.id]
        time_left = "unknown" if each is None else clock(each * left[cell.id])
        shown = "unknown" if each is None else f"{each:.3g}"
        done_of = f"{done[cell.id]}/{len(plan.samples)}"
        table.add_row(Text(cell.label), cell.id, done_of, shown, time_left if left[cell.id] else "done")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    known = sum(c * left[i] for i, c in cost.items() if c is not None)
    unknown = [cell.label for cell in plan.cells if cost[cell.id] is None and left[cell.id]]
    console.print(_sentence(plan, known, len(unknown)), markup=False, highlight=False, soft_wrap=True)
    if paper := plan.config.get("paper"):
        needs = f"re-runs {paper['source']}; in full it needs {'; '.join(paper['needs'])}"
        console.print(needs, markup=False, highlight=False, soft_wrap=True)
    for name, why in plan.unavailable.items():
        console.print(f"{name} will be unavailable: {why}", markup=False, highlight=False, soft_wrap=True)
    print(json.dumps(_summary(plan, done, known, unknown), ensure_ascii=False))
    return 0


def known_cost(results: Path, cell: Cell) -> float | None:
    """Seconds per image of this very cell, from any study in the folder: an id says the same machine and
    settings."""
    batches = {}
    for folder in results.glob(f"*/cells/{cell.id}"):
        for record in Store(folder.parent.parent).samples(cell.id).values():
            batches[record["batch"]["id"]] = record["batch"]
    parts = ("seconds", "encode_seconds", "decode_seconds")
    return median(sum(b[p] for p in parts) / b["size"] for b in batches.values()) if batches else None


def _sentence(plan: Plan, known: float, unknown: int) -> str:
    images = f"{len(plan.cells)} cells x {len(plan.samples)} images in {plan.folder}"
    if unknown:
        rest = f", and {clock(known)} for the others" if known else ""
        return f"{images}: time unknown for {unknown} cells, which were never timed on this machine{rest}"
    return f"{images}: about {clock(known)} left, from stored timings"


def _summary(plan: Plan, done: dict[str, int], known: float, unknown: list[str]) -> dict:
    return {
        "study": str(plan.folder),
        "plan": True,
        "cells": len(plan.cells),
        "done": sum(n == len(plan.samples) for n in done.values()),
        "images_left": len(plan.cells) * len(plan.samples) - sum(done.values()),
        "seconds_left": None if unknown else round(known, 1),
        "rows": [
            {"label": c.label, "id": c.id, "done": done[c.id], "n": len(plan.samples)} for c in plan.cells
        ],
    }

"""Forecasts of a plan as a table: apart from what is measured, and named so."""

from collections.abc import Mapping
from typing import Any

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.table import FACTOR, TIME, Column, Entry, Table
from fovea.study.run.forecast import Forecast
from fovea.study.run.progress import clock

COLUMNS = (
    Column("label", "cell", left=True),
    Column("id"),
    Column("teraflop", "TFLOP"),
    Column("seconds", "s/image", digits=TIME),
    Column("speedup", "speedup", digits=FACTOR, unit="x"),
    Column("by_flops", "by FLOPs", digits=FACTOR, unit="x"),
    Column("by_roofline", "by roofline", digits=FACTOR, unit="x"),
    Column("by_launches", "by launches", digits=FACTOR, unit="x"),
    Column("memory_gib", "GiB"),
    Column("gpu_hours", "GPU-hours"),
)
GUESSED, LARGE = " †", " ‡"


def table(plan: Plan, found: Mapping[str, Forecast]) -> Table:
    """A row per cell. Beside the forecast speedup its bounds: what it would be if FLOPs were all, on a GPU
    without losses, and if the number of kernels were all."""
    gpu, images = plan.gpu, len(plan.samples)
    room = gpu.memory - gpu.reserve
    rows = [_row(cell, found, images, room) for cell in plan.cells]
    return Table(COLUMNS, rows, _notes(plan, found, room), f"Forecast, not measured: {gpu.name}")


def hours(plan: Plan, found: Mapping[str, Forecast]) -> float:
    """GPU-hours of all images, text encoded and images decoded."""
    return sum(found[cell.id].whole for cell in plan.cells) * len(plan.samples) / 3600


def _row(cell: Cell, found: Mapping[str, Forecast], images: int, room: float) -> dict[str, Entry]:
    own, dense = found[cell.id], found[cell.dense]
    guessed = GUESSED if own.guessed else ""
    return {
        "label": Entry(cell.label, mark=guessed),
        "id": Entry(cell.id),
        "teraflop": Entry(own.flops / 1e12),
        "seconds": Entry(own.seconds),
        "speedup": Entry(dense.seconds / own.seconds),
        "by_flops": Entry(dense.flops / own.flops),
        "by_roofline": Entry(dense.roofline / own.roofline),
        "by_launches": Entry(dense.kernels / own.kernels),
        "memory_gib": Entry(own.memory(), mark=LARGE if own.memory() > room else ""),
        "gpu_hours": Entry(own.whole * images / 3600),
    }


def _notes(plan: Plan, found: Mapping[str, Forecast], room: float) -> list[str]:
    gpu, cells = plan.gpu, [found[cell.id] for cell in plan.cells]
    notes = [
        f"{gpu.name}: {gpu.tflops:g} TFLOP/s of dense bfloat16, {gpu.memory:g} GiB, {gpu.bandwidth:g} GB/s "
        f"({gpu.source}). Each kernel takes its FLOPs at {gpu.compute:.0%} of the peak or its bytes at "
        f"{gpu.traffic:.0%} of the bandwidth, whichever is longer, and {gpu.launch:g} µs (on.compute, "
        f"on.traffic, on.launch); {gpu.reserve:g} GiB are left to the driver and the allocator (on.reserve)",
        f"forecast of the study: {clock(3600 * hours(plan, found))} of one GPU for {len(plan.samples)} "
        f"images of {len(cells)} cells, text and decoding included, scoring not",
    ]
    if any(one.guessed for one in cells):
        notes.append(
            f"{GUESSED.strip()} decides by values, which a forecast has not: as if no step were skipped"
        )
    return [*notes, *_too_large(plan, found, room)]


def _too_large(plan: Plan, found: Mapping[str, Forecast], room: float) -> list[str]:
    """A note for all cells that need the same, and what would fit."""
    labels: dict[str, list[str]] = {}
    for cell in plan.cells:
        own = found[cell.id]
        if own.memory() > room:
            fits = [f"{what}, {need:.1f} GiB" for what, need in own.remedies(room).items()]
            would = f"would fit: {'; '.join(fits)}" if fits else "nothing forecast here would fit"
            need = f"{own.memory():.1f} GiB at batch={own.batch} do not fit into {room:g} GiB; {would}"
            labels.setdefault(need, []).append(cell.label)
    return [f"{LARGE.strip()} {', '.join(names)}: {need}" for need, names in labels.items()]


def record(plan: Plan, found: Mapping[str, Forecast]) -> dict[str, Any]:
    """As data."""
    return {
        "gpu": plan.gpu.name,
        "gpu_hours": hours(plan, found),
        "rows": table(plan, found).records(),
    }

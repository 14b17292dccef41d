"""Forecasts of a plan as a table: apart from what is measured, and named so."""

from collections.abc import Callable, Mapping
from typing import Any

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.table import FACTOR, TIME, Column, Entry, Table
from fovea.study.run.forecast import Forecast
from fovea.study.run.progress import clock

COLUMNS = (
    Column("label", "cell", left=True),
    Column("id"),
    Column("teraflop", "TFLOP", "interval"),
    Column("seconds", "s/image", "interval", TIME),
    Column("speedup", "speedup", "interval", FACTOR, "x"),
    Column("by_flops", "by FLOPs", "interval", FACTOR, "x"),
    Column("by_roofline", "by roofline", "interval", FACTOR, "x"),
    Column("by_launches", "by launches", "interval", FACTOR, "x"),
    Column("memory_gib", "GiB"),
    Column("gpu_hours", "GPU-hours", "interval"),
)
GUESSED, LARGE = " †", " ‡"


def table(plan: Plan, found: Mapping[str, Forecast]) -> Table:
    """A row per cell. Beside the forecast speedup its bounds: what it would be if FLOPs were all, on a GPU
    without losses, and if the number of kernels were all."""
    gpu, images = plan.gpu, len(plan.samples)
    room = gpu.memory - gpu.reserve
    rows = [_row(cell, found, images, room) for cell in plan.cells]
    return Table(COLUMNS, rows, _notes(plan, found, room), f"Forecast, not measured: {gpu.name}")


def hours(plan: Plan, found: Mapping[str, Forecast]) -> tuple[float, float]:
    """GPU-hours of all images, text encoded and images decoded: with all skipped that may be, and nothing."""
    each = [found[cell.id] for cell in plan.cells]
    least, most = (sum(one.whole for one in ones) for ones in ([e.least or e for e in each], each))
    return least * len(plan.samples) / 3600, most * len(plan.samples) / 3600


def _row(cell: Cell, found: Mapping[str, Forecast], images: int, room: float) -> dict[str, Entry]:
    own, dense = found[cell.id], found[cell.dense]

    def between(key: str, of: Callable[[Forecast], float]) -> dict[str, Entry]:
        """With no step skipped, and the range up to all that may be."""
        value, column = of(own), next(column for column in COLUMNS if column.key == key)
        if own.least is None:
            return {key: Entry(value)}
        low, high = sorted((value, of(own.least)))
        text = f"{column.number(low, low)} to {column.number(high, high)}{column.unit}"
        return {key: Entry(value, low, high, text=text)}

    return {
        "label": Entry(cell.label, mark=GUESSED if own.guessed else ""),
        "id": Entry(cell.id),
        **between("teraflop", lambda one: one.flops / 1e12),
        **between("seconds", lambda one: one.seconds),
        **between("speedup", lambda one: dense.seconds / one.seconds),
        **between("by_flops", lambda one: dense.flops / one.flops),
        **between("by_roofline", lambda one: dense.roofline / one.roofline),
        **between("by_launches", lambda one: dense.kernels / one.kernels),
        "memory_gib": Entry(own.memory(), mark=LARGE if own.memory() > room else ""),
        **between("gpu_hours", lambda one: one.whole * images / 3600),
    }


def _notes(plan: Plan, found: Mapping[str, Forecast], room: float) -> list[str]:
    gpu, cells = plan.gpu, [found[cell.id] for cell in plan.cells]
    times = [clock(3600 * share) for share in dict.fromkeys(hours(plan, found))]
    notes = [
        f"{gpu.name}: {gpu.tflops:g} TFLOP/s of dense bfloat16, {gpu.memory:g} GiB, {gpu.bandwidth:g} GB/s "
        f"({gpu.source}). Each kernel takes its FLOPs at {gpu.compute:.0%} of the peak or its bytes at "
        f"{gpu.traffic:.0%} of the bandwidth, whichever is longer, and {gpu.launch:g} µs (on.compute, "
        f"on.traffic, on.launch); {gpu.reserve:g} GiB are left to the driver and the allocator (on.reserve)",
        f"forecast of the study: {' to '.join(times)} of one GPU for {len(plan.samples)} images of "
        f"{len(cells)} cells, text and decoding included, scoring not",
    ]
    if any(one.guessed for one in cells):
        notes.append(
            f"{GUESSED.strip()} decides by values, which a forecast has not: from no step skipped to all "
            "that may be"
        )
    kinds = sorted({cell.model["quantize"] for cell in plan.cells} - {"none"})
    if kinds:
        notes.append(f"model.quantize={', '.join(kinds)}: of the memory; time is that of unquantised weights")
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
    least, most = hours(plan, found)
    return {
        "gpu": plan.gpu.name,
        "gpu_hours": most,
        "gpu_hours_least": least,
        "rows": table(plan, found).records(),
    }

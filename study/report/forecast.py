"""The table of a plan's forecast cost, separate from measurements and labelled as a forecast."""

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
# values of these settings that times are forecast for
FORECAST = {"none", "auto", "flash", "efficient", "cudnn"}
NOT_TIMED = {
    "quantize": "in the memory only; time is of unquantised weights",
    "offload": "in the memory only; time is without moving the weights, which may take far longer",
    "compile": "not in the forecast; time is of blocks that are not compiled",
    "attention": "not in the forecast; attention counts as one kernel, as in FlashAttention",
}


def table(plan: Plan, found: Mapping[str, Forecast]) -> Table:
    """Return a table with one row per cell.

    Next to the forecast speedup stand its limits: if only FLOPs mattered, on a GPU at its roofline, and if
    only the number of kernel launches mattered.
    """
    gpu = plan.gpu
    room = gpu.memory - gpu.reserve
    rows = [_row(plan, cell, found, room) for cell in plan.cells]
    return Table(COLUMNS, rows, _notes(plan, found, room), f"Forecast, not measured: {gpu.name}")


def hours(plan: Plan, found: Mapping[str, Forecast]) -> tuple[float, float]:
    """Return GPU-hours of the study: (most steps skipped, none skipped). See `cell_hours`."""
    most = [(cell, found[cell.id]) for cell in plan.cells]
    least = [(cell, one.least or one) for cell, one in most]
    low, high = (sum(cell_hours(plan, cell, one) for cell, one in ones) for ones in (least, most))
    return low, high


def cell_hours(plan: Plan, cell: Cell, forecast: Forecast) -> float:
    """Return GPU-hours of one process that makes a cell: its images and its warm-up, encoding and decoding
    included, and its traced images, which are not decoded."""
    timed = (len(plan.samples) + len(plan.warm_up(cell))) * forecast.whole
    return (timed + len(plan.traced) * (forecast.encode + forecast.seconds)) / 3600


def _row(plan: Plan, cell: Cell, found: Mapping[str, Forecast], room: float) -> dict[str, Entry]:
    forecast, dense = found[cell.id], found[cell.dense]

    def value_and_range(key: str, of: Callable[[Forecast], float]) -> dict[str, Entry]:
        """Return the value with no step skipped, and the range up to the most steps skipped."""
        value, column = of(forecast), next(column for column in COLUMNS if column.key == key)
        if forecast.least is None:
            return {key: Entry(value)}
        low, high = sorted((value, of(forecast.least)))
        text = f"{column.number(low, low)} to {column.number(high, high)}{column.unit}"
        return {key: Entry(value, low, high, text=text)}

    return {
        "label": Entry(cell.label, mark=GUESSED if forecast.guessed else ""),
        "id": Entry(cell.id),
        **value_and_range("teraflop", lambda one: one.flops / 1e12),
        **value_and_range("seconds", lambda one: one.seconds),
        **value_and_range("speedup", lambda one: dense.seconds / one.seconds),
        **value_and_range("by_flops", lambda one: dense.flops / one.flops),
        **value_and_range("by_roofline", lambda one: dense.roofline / one.roofline),
        **value_and_range("by_launches", lambda one: dense.kernels / one.kernels),
        "memory_gib": Entry(forecast.memory(), mark=LARGE if forecast.memory() > room else ""),
        **value_and_range("gpu_hours", lambda one: cell_hours(plan, cell, one)),
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
        f"{len(cells)} cells; text, decoding, warm-up and traced images included, loading and scoring not",
    ]
    if any(one.guessed for one in cells):
        notes.append(
            f"{GUESSED.strip()} decides by values, which a forecast does not have: from no step skipped to "
            "all that may be"
        )
    for key, says in NOT_TIMED.items():
        if kinds := sorted({cell.model[key] for cell in plan.cells} - FORECAST):
            notes.append(f"model.{key}={', '.join(kinds)}: {says}")
    return [*notes, *_memory_notes(plan, found, room)]


def _memory_notes(plan: Plan, found: Mapping[str, Forecast], room: float) -> list[str]:
    """Return a note on cells that do not fit into memory, and what would fit; one note for equal needs."""
    labels: dict[str, list[str]] = {}
    for cell in plan.cells:
        forecast = found[cell.id]
        if forecast.memory() > room:
            fits = [f"{what}, {need:.1f} GiB" for what, need in forecast.remedies(room).items()]
            would = f"would fit: {'; '.join(fits)}" if fits else "nothing forecast here would fit"
            need = f"{forecast.memory():.1f} GiB at batch={forecast.batch} do not fit into {room:g} GiB"
            labels.setdefault(f"{need}; {would}", []).append(cell.label)
    return [f"{LARGE.strip()} {', '.join(names)}: {need}" for need, names in labels.items()]


def record(plan: Plan, found: Mapping[str, Forecast]) -> dict[str, Any]:
    """Return the forecast as JSON data."""
    least, most = hours(plan, found)
    return {
        "gpu": plan.gpu.name,
        "gpu_hours": most,
        "gpu_hours_least": least,
        "rows": table(plan, found).records(),
    }

"""All that shows a study token by token and step by step; what does not apply to it is not there."""

from pathlib import Path

from fovea.study.plan.plan import Plan
from fovea.study.report.animation import animation
from fovea.study.report.continuity import continuity
from fovea.study.report.maps import focus, maps
from fovea.study.report.regions import regions
from fovea.study.report.traced import table, traced
from fovea.study.report.traces import departure
from fovea.study.store import Store, write


def show(plan: Plan, store: Store, folder: Path) -> None:
    """focus, scores, departure, regions (.png and .svg), focus.webp and traces.parquet. What an earlier
    report left and this one has not is taken away."""
    found, traces = maps(plan, store), traced(plan, store)
    written = {
        "focus.png": focus(plan, store, found, folder),
        "focus.webp": animation(plan, store, found, folder),
        "scores.png": continuity(plan, store, traces, folder),
        "departure.png": departure(plan, store, traces, folder),
        "regions.png": regions(plan, store, traces, folder),
        "traces.parquet": bool(traces),
    }
    if traces:
        write(folder / "traces.parquet", table(traces, plan.random_weights))
    for name in (name for name, there in written.items() if not there):
        (folder / name).unlink(missing_ok=True)
        (folder / name).with_suffix(".svg").unlink(missing_ok=True)

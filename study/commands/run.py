"""Without a command: plan, run and report a study; with plan=true, only print the plan."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.files import write_json
from fovea.study.picture import Damaged
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan, make
from fovea.study.presence import REPORT
from fovea.study.report.table import Table
from fovea.study.report.terminal import print_lines, print_table, print_text, terminal
from fovea.study.run.progress import (
    Progress,
    active_workers,
    clock,
    count_busy,
    seconds_left,
    seconds_per_image,
)
from fovea.study.run.provenance import provenance
from fovea.study.store import Store
from fovea.study.stored import Stored
from fovea.study.streams import print_summary
from fovea.study.workers import Worker

T = TypeVar("T")
# what happens to damaged images in commands that generate nothing
MISSING = "missing here; a run of the study makes them again"


def run(arguments: list[str]) -> int:
    plan = make(arguments)
    if plan.settings.plan:
        return preview(plan)
    store = Store(plan.folder)
    with instantiate(plan.config["launcher"], "launcher", "fovea.study").opened() as launcher:
        plan = launcher.plan(plan, arguments)
        with store.at_work(plan.digest) as worker:
            return _make_and_report(plan, store, arguments, worker, launcher)


def _make_and_report(plan: Plan, store: Store, arguments: list[str], worker: Worker, launcher: Any) -> int:
    with Progress() as progress:
        for note in [*worker.notes, *_others(worker), *_notes(plan), *damaged(plan, store, "made again")]:
            progress.say(note)

        def made() -> tuple[Any, dict[str, Any]]:
            if store.lacking([cell.id for cell in plan.cells], plan.keys):
                # written first, in case the run is killed
                start = store.folder / "runs" / f"{store.session}.json"
                write_json(start, provenance(plan, arguments, store.session))
                launcher.make(plan, store, worker, progress)
                store.refresh(cell.id for cell in plan.cells)  # other processes made part of it
            from fovea.study.report.report import report  # deferred: the import takes seconds

            with worker.holding(REPORT):
                progress.say("scoring and reporting")
                store.index(cell.id for cell in plan.cells)
                return report(plan, store, provenance(plan, arguments, store.session))

        tables, summary = retry_on_damage(made, store, progress, "made again")
    return end(plan, store, tables, summary)


def _others(worker: Worker) -> list[str]:
    others = list(map(str, worker.others()))
    return [f"shares the work with {', '.join(others)}"] if others else []


def damaged(plan: Plan, store: Store, then: str) -> list[str]:
    """Return a note on images that differ from their records, and one on invalid records: they count as
    missing. then: what happens to them."""
    cells = [cell.id for cell in plan.cells]
    found, broken = store.verify(cells), store.broken(cells)
    images = [f"{file}{_and_more(found)}: not readable, or not the image that was recorded" for file in found]
    count = sum(broken.values())
    lines = f"{count} lines are no records" if count > 1 else "a line is no record"
    records = [
        f"{place}{_and_more(broken)}: {lines}, but torn, changed or another cell's" for place in broken
    ]
    return [f"{note}; {then}" for note in (*images[:1], *records[:1])]


def no_images(store: Store) -> str:
    """Return why a study has no finished image: they are elsewhere, or without readable records."""
    if store.holds_images():
        return (
            f"no image of {store.folder} has a record that can be read; a run of the study makes them again"
        )
    return f"the images of {store.folder} are not here, only what was written of them"


def _and_more(found: Collection[Any]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def retry_on_damage(work: Callable[[], T], store: Store, progress: Progress, then: str) -> T:
    """Run `work`, repeating it without any image that turns out to be unreadable although its file is
    unchanged. Raises Refused if an image is unreadable again after it was made again."""
    known: set[Path] = set()
    while True:
        try:
            return work()
        except Damaged as error:
            if error.path in known:
                raise Refused(f"{error}; it was made again: is the disk sound?") from None
            known.add(error.path)
            store.distrust(error.path)
            progress.say(f"{error}; {then}")


def _notes(plan: Plan) -> list[str]:
    """Return what to know before the study runs."""
    return [*foreseen(plan), *_too_few(plan), *unavailable(plan), *other_report(plan)]


def foreseen(plan: Plan) -> list[str]:
    """Return notes on baselines that differ from their model card, and on methods that skip no step at the
    model's number of steps: few-step models leave them none to skip."""
    out = [f"{c.label} is not the model card's: {c.unlike_card}" for c in plan.cells if c.unlike_card]
    for cell in plan.cells:
        if cell.role != "method" or cell.off:
            continue
        made = instantiate(cell.method, "method", "fovea.methods")
        if hasattr(made, "saves") and not made.saves(cell.model["steps"]):
            steps = cell.method.get("steps") or cell.model["steps"]
            note = f"can save nothing in {steps} steps: all of them run, and as a no-op it counts as failed"
            out.append(f"{cell.label} {note}")
    return out


def unavailable(plan: Plan) -> list[str]:
    return [f"{name} will be unavailable: {why}" for name, why in plan.unavailable.items()]


def other_report(plan: Plan) -> list[str]:
    """Return a note if the folder holds another study's report, which will be overwritten. Cells that leave
    the table keep their images; for labels that remain, what has changed is named."""
    cells, named = ({getattr(cell, key): cell for cell in plan.cells} for key in ("id", "label"))
    before = Stored(plan.folder).reported.get("cells", {})
    left = {known["label"]: known for cell, known in before.items() if cell not in cells}
    if not left:
        return []
    changed = [_changed(left[label], named[label].identity) for label in left.keys() & named.keys()]
    what = ", ".join(sorted({key for keys in changed for key in keys}))
    report = f"another study's report, with {', '.join(left)}{what and f' (changed since: {what})'}"
    return [f"{plan.folder} has {report}: a run writes over it, the images stay; name=NEW keeps both"]


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of a cell's identity that differ: settings, weights, code, packages, machine."""
    for key, value in now.items():
        known = before.get(key)
        if key in ("model", "method") and isinstance(known, Mapping):
            yield from (f"{key}.{name}" for name in value if value[name] != known.get(name))
        elif known != value:
            yield key


def _too_few(plan: Plan) -> list[str]:
    made, wanted = len(plan.samples), plan.settings.n * len(plan.settings.seeds)
    few = f"{made} images per cell, not {wanted}: {plan.settings.prompts} has no more different prompts"
    return [few] if made < wanted else []


def end(plan: Plan, store: Store, tables: Iterable[Table], summary: dict[str, Any]) -> int:
    """Finish a command that makes a report: print the tables, run the logger, print the JSON summary. Returns
    the exit code: 3 if a cell failed or lacks images."""
    console = terminal()
    for table in tables:
        print_table(table, console)
    instantiate(plan.config["logger"], "logger", "fovea.study")(store.folder)
    print_summary(summary)
    return 3 if summary["failed"] or summary["done"] < summary["cells"] else 0


def preview(plan: Plan) -> int:
    """Print the cells, what is done, and the time for the rest. Nothing is created, not even a folder."""
    store, n = Store(plan.folder), len(plan.samples)
    store.check()
    missing = damaged(plan, store, "a run makes them again")
    done = {cell.id: len(store.samples(cell.id).only(plan.keys)) for cell in plan.cells}
    times = {cell.id: known_cost(Path(plan.settings.results), cell) for cell in plan.cells}
    cost = {cell: each for cell, each in times.items() if each is not None}
    lines = [["cell", "id", "done", "s/image", "time left"]]
    for cell in plan.cells:
        each, left = times[cell.id], n - done[cell.id]
        time_left = "done" if not left else "unknown" if each is None else clock(each * left)
        shown = "unknown" if each is None else f"{each:.3g}"
        lines.append([cell.label, cell.id, f"{done[cell.id]}/{n}", shown, time_left])
    at_work = active_workers(store, done)
    known = seconds_left({cell: n - done[cell] for cell in cost}, cost, count_busy(at_work)) or 0.0
    unknown = [cell.label for cell in plan.cells if cell.id not in cost and done[cell.id] < n]
    console = terminal(120)
    print_lines(lines, console, left=2)
    print_text(_sentence(plan, known, len(unknown)), console)
    for note in [*map(str, at_work), *_needs(plan), *_notes(plan), *missing]:
        print_text(note, console)
    found = _summary(plan, done, known, unknown) | {"workers": [asdict(one) for one in at_work]}
    print_summary(found | _forecast(plan, console))
    return 0


def _forecast(plan: Plan, console: Any) -> dict[str, Any]:
    """Print the forecast and return it as data, if a GPU is named."""
    if plan.gpu is None:
        return {}
    from fovea.study.report import forecast
    from fovea.study.run.forecast import forecasts

    found = forecasts(plan)
    print_table(forecast.table(plan, found), console)
    return {"forecast": forecast.record(plan, found)}


def _needs(plan: Plan) -> list[str]:
    paper = plan.config.get("paper")
    return [f"re-runs {paper['source']}; in full it needs {'; '.join(paper['needs'])}"] if paper else []


def known_cost(results: Path, cell: Cell) -> float | None:
    """Return the seconds per image of this cell, from any study in the folder: an equal id means the same
    machine and settings."""
    batches = {}
    for folder in results.glob(f"*/cells/{cell.id}"):
        batches |= Store(folder.parent.parent).samples(cell.id).batches
    return seconds_per_image(batches.values())


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

"""Plan, run, report: what run.py does, in order."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from study.plan import Plan, make
from study.preview import preview
from study.store import Store, write_json


def study(arguments: list[str]) -> int:
    """Exit code 0, or 3 if a cell failed. Raises Refused before anything is loaded or made."""
    plan = make(arguments)
    if plan.settings.plan:
        return preview(plan)
    store = Store(plan.folder)
    with store.lock():
        return _work(plan, store, arguments)


def _work(plan: Plan, store: Store, arguments: list[str]) -> int:
    from study.build import build
    from study.progress import Progress

    with Progress() as progress:
        for name, why in plan.unavailable.items():
            progress.say(f"{name} will be unavailable: {why}")
        keys = {s.key for s in plan.samples}
        if len(keys) < (asked := plan.settings.n * len(plan.settings.seeds)):
            progress.say(
                f"{len(keys)} images per cell, not {asked}: {plan.settings.prompts} has no more prompts"
            )
        if any(keys - set(store.samples(cell.id)) for cell in plan.cells):
            _note_start(plan, store.folder, arguments)
            build(plan.config["launcher"], "launcher", "study")(plan, store, progress)
        progress.say("scoring and reporting")
        from study.report import report

        rows, summary = report(plan, store, arguments)
    from rich.console import Console

    from study.forms import show

    show(rows, plan.random_weights, Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200))
    build(plan.config["logger"], "logger", "study")(plan, rows, store.folder)
    print(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    return 3 if summary["failed"] else 0


def _note_start(plan: Plan, folder: Path, arguments: list[str]) -> None:
    """Every start that makes something leaves its provenance, whatever becomes of it."""
    from study.provenance import provenance

    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    write_json(folder / "runs" / f"{time}.json", provenance(plan, arguments))

"""Plan, run, report: what run.py does, in order."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study import rescore
from study.build import build
from study.plan import Plan, make
from study.preview import preview
from study.store import Store, write_json


def study(arguments: list[str]) -> int:
    """Exit code 0, or 3 if a cell failed. Raises Refused before anything is loaded or made."""
    if folder := rescore.folder(arguments):
        return _scored_again(folder, arguments)
    plan = make(arguments)
    if plan.settings.plan:
        return preview(plan)
    store = Store(plan.folder)
    with store.lock():
        return _work(plan, store, arguments)


def _work(plan: Plan, store: Store, arguments: list[str]) -> int:
    from study.progress import Progress
    from study.provenance import provenance

    with Progress() as progress:
        _say_unavailable(plan, progress)
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

        rows, summary = report(plan, store, provenance(plan, arguments))
    return _end(plan, store, rows, summary)


def _scored_again(folder: Path, arguments: list[str]) -> int:
    from study.progress import Progress

    plan, stored = rescore.plan(folder, arguments)
    store = Store(folder)
    with store.lock(), Progress() as progress:
        _say_unavailable(plan, progress)
        keys = {s.key for s in plan.samples}
        images = [len(keys & set(store.samples(cell.id))) for cell in plan.cells]
        now, before = (", ".join(m) or "nothing" for m in (plan.metrics, stored["config"]["metric"]))
        progress.say(
            f"nothing is generated: scoring {sum(images)} stored images of {len(images)} cells "
            f"with {now} (before: {before})"
        )
        from study.report import report

        rows, summary = report(plan, store, rescore.note(stored, plan.config, arguments))
    return _end(plan, store, rows, summary | {"rescored": list(plan.metrics)})


def _say_unavailable(plan: Plan, progress: Any) -> None:
    for name, why in plan.unavailable.items():
        progress.say(f"{name} will be unavailable: {why}")


def _end(plan: Plan, store: Store, rows: Any, summary: dict[str, Any]) -> int:
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

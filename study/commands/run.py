"""Plan, run, report: what run.py does, in order. What else it does is in study/commands/command.py."""

from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from fovea.study.commands.command import DEEDS, asked
from fovea.study.commands.ending import end, say_unavailable
from fovea.study.commands.preview import preview
from fovea.study.config.instantiate import build
from fovea.study.plan.plan import Plan, make
from fovea.study.store import Store, read_json, write_json


def study(arguments: list[str]) -> int:
    """Exit code 0, or 3 if a cell failed. Raises Refused before anything is loaded or made."""
    if deed := asked(arguments):
        return import_module(DEEDS[deed.name]).run(deed)
    plan = make(arguments)
    if plan.settings.plan:
        return preview(plan)
    store = Store(plan.folder)
    with store.lock():
        return _work(plan, store, arguments)


def _work(plan: Plan, store: Store, arguments: list[str]) -> int:
    from fovea.study.run.progress import Progress
    from fovea.study.run.provenance import provenance

    with Progress() as progress:
        say_unavailable(plan, progress)
        _say_other(plan, store, progress)
        keys = {s.key for s in plan.samples}
        if len(keys) < (wanted := plan.settings.n * len(plan.settings.seeds)):
            progress.say(
                f"{len(keys)} images per cell, not {wanted}: {plan.settings.prompts} has no more prompts"
            )
        if any(keys - set(store.samples(cell.id)) for cell in plan.cells):
            _note_start(plan, store.folder, arguments)
            build(plan.config["launcher"], "launcher", "fovea.study")(plan, store, progress)
        progress.say("scoring and reporting")
        from fovea.study.report.report import report

        rows, summary = report(plan, store, provenance(plan, arguments))
    return end(plan, store, rows, summary)


def _say_other(plan: Plan, store: Store, progress: Any) -> None:
    """A folder has one report. Cells of another study in it keep their images and lose their rows."""
    before = (read_json(store.folder / "provenance.json") or {}).get("cells", {})
    left = [known["label"] for cell, known in before.items() if cell not in {c.id for c in plan.cells}]
    if left:
        progress.say(
            f"{store.folder} has another study's report, with {', '.join(left)}: it is written over, the "
            "images stay; name=NEW keeps both"
        )


def _note_start(plan: Plan, folder: Path, arguments: list[str]) -> None:
    """Every start that makes something leaves its provenance, whatever becomes of it."""
    from fovea.study.run.provenance import provenance

    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    write_json(folder / "runs" / f"{time}.json", provenance(plan, arguments))

"""How every command that makes a report begins and ends: what will be missing, the table, the log, one JSON
object."""

import json
import sys
from typing import Any

from fovea.study.config.instantiate import build
from fovea.study.plan.plan import Plan
from fovea.study.store import Store


def say_unavailable(plan: Plan, progress: Any) -> None:
    for name, why in plan.unavailable.items():
        progress.say(f"{name} will be unavailable: {why}")


def end(plan: Plan, store: Store, rows: Any, summary: dict[str, Any]) -> int:
    """The exit code: 0, or 3 if a cell failed."""
    from fovea.study.report import published as printed
    from fovea.study.report.formats import show
    from fovea.study.report.terminal import terminal

    console = terminal()
    show(rows, plan.random_weights, console)
    if paper := printed.table(plan, rows):
        printed.show(plan, paper, console)
    build(plan.config["logger"], "logger", "fovea.study")(store.folder)
    sys.stderr.flush()
    print(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    return 3 if summary["failed"] else 0

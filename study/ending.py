"""How every command that makes a report begins and ends: what will be missing, the table, the log, one JSON
object."""

import json
import sys
from typing import Any

from study.build import build
from study.plan import Plan
from study.store import Store


def say_unavailable(plan: Plan, progress: Any) -> None:
    for name, why in plan.unavailable.items():
        progress.say(f"{name} will be unavailable: {why}")


def end(plan: Plan, store: Store, rows: Any, summary: dict[str, Any]) -> int:
    """The exit code: 0, or 3 if a cell failed."""
    from study import printed
    from study.forms import show
    from study.terminal import terminal

    console = terminal()
    show(rows, plan.random_weights, console)
    if paper := printed.table(plan, rows):
        printed.show(plan, paper, console)
    build(plan.config["logger"], "logger", "study")(store.folder)
    sys.stderr.flush()
    print(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    return 3 if summary["failed"] else 0

"""Launchers: where cells run. A launcher is open while a study runs. It plans the study where it will run,
since a cell's identity includes the machine, and starts any number of processes that join and take shards.

A launcher is a dataclass with the three methods of `Local`. Each process that it starts consumes the events
of `share.join(plan, store, session)` (all three can be pickled; session: `store.session`), and `watch` shows
their progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from fovea.study.run.events import Remaining

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker

PAUSE = 2.0  # seconds between looks at a study that other processes work on


@dataclass(frozen=True)
class Local:
    """Run in this process, on this device."""

    @contextmanager
    def opened(self) -> "Iterator[Local]":
        yield self

    def plan(self, plan: "Plan", arguments: list[str]) -> "Plan":
        """Return the plan as the processes that run it see it. plan: as this process sees it, from the same
        arguments."""
        return plan

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        """Make what is missing. worker: this process, registered as at work on the study together with the
        processes started."""
        from fovea.study.run.share import share  # imports torch and diffusers, which takes seconds

        for event in share(plan, store, worker):
            progress.tell(event)


def watch(
    plan: "Plan",
    store: "Store",
    worker: "Worker",
    progress: "Progress",
    running: Callable[[], int],
) -> None:
    """Show the progress of a study until none of the processes that a launcher started runs any more.

    running: returns how many of them run.
    """
    cells, alive = [cell.id for cell in plan.cells], 1
    while alive:
        alive = running()
        progress.tell(Remaining(store.count_lacking(cells, plan.keys), max(1, alive)))
        if alive:
            worker.check()
            time.sleep(PAUSE)

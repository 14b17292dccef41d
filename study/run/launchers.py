"""Launchers: where cells run. A launcher is open while a study runs. It plans the study where it will run,
since a cell's identity includes the machine, and starts any number of processes that join and take shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker


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

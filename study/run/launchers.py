"""Where cells run. A launcher is opened for the time of a study: it plans it where it will run, as a cell is
named after the machine, and has it made by as many processes as it likes: each joins in and takes shards."""

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
    """This process, this device."""

    @contextmanager
    def opened(self) -> "Iterator[Local]":
        yield self

    def plan(self, plan: "Plan", arguments: list[str]) -> "Plan":
        """As the processes that make it have it. plan: as this one has it, by these arguments."""
        return plan

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        """What is missing. worker: this process, at work on the study with all that the launcher starts."""
        from fovea.study.run.share import share  # torch, diffusers: seconds, only if something is to be made

        for event in share(plan, store, worker):
            progress.tell(event)

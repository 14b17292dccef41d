"""Where cells run. A launcher has a study made, by as many processes as it likes, and tells what comes of it:
each of them joins in, and `share` hands out the work."""

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

    def __call__(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        from fovea.study.run.share import share  # torch, diffusers: seconds, only if something is to be made

        for event in share(plan, store, worker):
            progress.tell(event)

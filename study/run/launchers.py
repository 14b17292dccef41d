"""Where cells run. A launcher hands out shards, some cells with some samples each, and tells what comes of
them."""

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store


@dataclass(frozen=True)
class Local:
    """This process, this device, one shard of everything."""

    def __call__(self, plan: "Plan", store: "Store", progress: "Progress") -> None:
        from fovea.study.run.execute import (
            run_shard,  # torch, diffusers: seconds, only if something is to be made
        )

        for event in run_shard(plan, [c.id for c in plan.cells], [s.key for s in plan.samples], store):
            progress.tell(event)

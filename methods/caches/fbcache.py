"""First-block cache: the first block decides whether the others run (ParaAttention, diffusers)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.dbcache import DBCache


@dataclass(frozen=True, config={"extra": "forbid"})
class FBCache(Cache):
    """DBCache with one block in front, none at the back and no warm-up.

    threshold: bound on the relative L1 difference of the first block's residual to when the others last ran.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.05

    off: ClassVar = {"threshold": 0.0}

    def saves(self, steps):
        return steps > 1

    def start(self, flow, steps):
        return DBCache(self.threshold, front=1, back=0, warmup=0).start(flow, steps)

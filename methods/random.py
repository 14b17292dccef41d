"""Random selection, the control for RAS: as many tokens at the same steps, chosen at random."""

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from fovea.methods.ras import RAS
from fovea.methods.sparsity import Sparsity


@dataclass(frozen=True, config={"extra": "forbid"})
class Random(Sparsity):
    """RAS (arXiv:2502.10389) with random scores and no starvation; each image has its own generator."""

    off: ClassVar[dict[str, Any]] = {"ratio": 1.0}

    def __call__(self, flow, on_step=None):
        return RAS(**vars(self), selection="random")(flow, on_step)

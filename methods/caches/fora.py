"""FORA: reuse the outputs of attention and MLP modules (Selvaraju et al. 2024, arXiv:2407.01425)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.methods.caches.taylorseer import TaylorSeer


@dataclass(frozen=True, config={"extra": "forbid"})
class FORA(Cache):
    """Every `interval` steps, starting with the first, all modules run; otherwise their outputs are reused.

    This is a Taylor series of order 0.
    """

    interval: Annotated[int, Field(ge=1)] = 3

    off: ClassVar = {"interval": 1}

    def saves(self, steps):
        return self.interval > 1 and steps > 1

    def start(self, flow, steps):
        return TaylorSeer(self.interval, order=0, warmup=1, phase="paper").start(flow, steps)

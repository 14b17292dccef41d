"""Caching: every Euler step is taken, and some of the evaluations are answered from earlier ones."""

from typing import Annotated

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from fovea.methods import solvers
from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class Caching:
    """The baseline with one of the caches in methods/caches.

    cache: which, with its settings. steps: number of Euler steps; None for the model's own.
    """

    cache: InstanceOf[Cache]
    steps: Annotated[int, Field(ge=1)] | None = None

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas = flow.noise(), flow.sigmas(self.steps)
        velocity = self.cache.start(flow, len(sigmas) - 1)
        return solvers.euler(velocity, x, sigmas, on_step or solvers.silent)

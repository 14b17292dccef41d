"""Caching: take every step, but replace some model evaluations by cached or forecast results."""

from typing import Annotated, Literal

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from fovea.methods import solvers
from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class Caching:
    """The baseline with one of the caches in methods/caches.

    cache: the cache and its settings.
    steps: number of steps; None for the model's default.
    solver: as in `Steps`.
    """

    cache: InstanceOf[Cache]
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    solver: Literal["euler", "heun", "dpm++2m", "unipc"] = "euler"

    def __post_init__(self):
        if self.steps is not None:
            self.check_steps(self.steps)

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if the cache is fitted to another number of steps."""
        self.check_steps(steps)

    def check_steps(self, steps: int) -> None:
        if self.cache.required_steps not in (None, steps):
            raise ValueError(f"steps={steps}: the cache is fitted to {self.cache.required_steps} steps")

    def saves(self, steps: int) -> bool:
        """See `Cache.saves`. steps: the model's default."""
        return self.cache.saves(steps if self.steps is None else self.steps)

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas = flow.noise(), flow.sigmas(self.steps)
        velocity = self.cache.start(flow, len(sigmas) - 1)
        return solvers.SOLVERS[self.solver](velocity, x, sigmas, on_step or solvers.no_callback)

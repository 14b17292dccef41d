"""Step reduction: fewer steps of the same schedule, with a solver of first or second order."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods import solvers
from fovea.methods.cache import uncached


@dataclass(frozen=True, config={"extra": "forbid"})
class Steps:
    """The baseline with another number of steps or another solver: the curve that every method has to beat.

    steps: number of steps; None for the model's default. Heun evaluates the model twice per step except the
        last.
    solver: "euler", "heun", "dpm++2m" (arXiv:2211.01095) or "unipc" (arXiv:2302.04867).
    schedule: "own" is the pipeline's schedule for this number of steps, which a user of fewer steps gets.
        "held" keeps the schedule of the model's default number of steps, where it depends on that number
        (FLUX.2, Qwen-Image), so that only the number of steps changes.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    solver: Literal["euler", "heun", "dpm++2m", "unipc"] = "euler"
    schedule: Literal["own", "held"] = "own"

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        held = self.schedule == "held"
        sigmas = flow.sigmas(self.steps, schedule_steps=flow.steps) if held else flow.sigmas(self.steps)
        solve = solvers.SOLVERS[self.solver]
        return solve(uncached(flow), flow.noise(), sigmas, on_step or solvers.no_callback)

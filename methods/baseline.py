"""The baseline: all tokens at every step of the pipeline's own schedule, with one Euler step each."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.steps import Steps


@dataclass(frozen=True, config={"extra": "forbid"})
class Baseline:
    """Dense Euler sampling of the probability flow (flow matching, arXiv:2210.02747).

    steps: number of steps; None for the model's default.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None

    def __call__(self, flow, on_step=None):
        return Steps(self.steps, solver="euler")(flow, on_step)

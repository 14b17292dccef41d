"""The baseline: every token at every step of the pipeline's own schedule, one Euler step each."""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from methods.tokens import euler


@dataclass(frozen=True, config={"extra": "forbid"})
class Baseline:
    """Dense Euler sampling of the probability flow (flow matching, arXiv:2210.02747).

    steps: number of steps; None for the model's own.
    """

    steps: Annotated[int, Field(ge=1)] | None = None

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x = flow.noise()  # (b, n, c)
        for i, (s, s_next) in enumerate(pairwise(flow.sigmas(self.steps))):
            v = flow.velocity(x, s)
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=None)
        return x

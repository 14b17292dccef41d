"""EasyCache: skip the model while its output, at the rate it last changed, hardly does (arXiv:2507.02860)."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class EasyCache(Cache):
    """How much the velocity changed per change of its input, between the last two steps that ran, tells how
    much it changes now; while the sum of that since the model last ran is below the threshold, nothing runs.
    The last step always does; each image decides for itself, by its guided velocity.

    threshold: tau, of the summed relative change. retention: first share of the steps, which all run (5 of 50
    for HunyuanVideo, 10 of 50 for Wan). rule: the change of the input is that from the step before, or, in
    ComfyUI, that from the last step that ran, whose sum grows with its square: tau 0.2 and retention 0.15
    there. (ComfyUI looks at every eighth pixel, and lets the last 5 % of the steps run.)
    keep: what is kept from the last step that ran, velocity less input, as released, or the velocity itself,
    which is exact on a straight path.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.05
    retention: Annotated[float, Field(ge=0, le=1)] = 0.1
    rule: Literal["paper", "comfyui"] = "paper"
    keep: Literal["difference", "velocity"] = "difference"

    off: ClassVar = {"threshold": 0.0}

    def saves(self, steps):
        """The rate is known from the third step on, and the last runs."""
        return max(2, round(self.retention * steps)) < steps - 1

    def start(self, flow, steps):
        drift = torch.zeros(len(flow.generators), device=flow.device)
        rate = torch.full_like(drift, torch.nan)  # unknown before two steps have run: no comparison holds
        before = ran_x = ran_v = None  # input of the step before; of the last that ran, and its output

        def velocity(step, x, sigma, encodings=None):
            nonlocal drift, rate, before, ran_x, ran_v
            if ran_v is None or not round(self.retention * steps) <= step < steps - 1:
                due = torch.ones_like(drift, dtype=torch.bool)
                images = [*range(len(drift))]
            else:
                drift = drift + rate * size(x - before) / size(ran_v)
                due = ~(drift < self.threshold)
                flow.compared.append(drift)
                images = [i for i, runs in enumerate(due.tolist()) if runs]
            v = self.renewed(flow, x, sigma, encodings, images, ran_x, ran_v)
            drift = drift.masked_fill(due, 0.0)
            if ran_v is not None:
                rate = torch.where(due, size(v - ran_v) / size(x - ran_x), rate)
            if ran_x is None or ran_v is None:
                ran_x, ran_v = x, v
            else:
                run = due[:, None, None]
                ran_x, ran_v = torch.where(run, x, ran_x), torch.where(run, v, ran_v)
            before = x if self.rule == "paper" else ran_x
            return v

        return velocity

    def renewed(self, flow, x, sigma, encodings, images, ran_x, ran_v) -> Tensor:
        """Velocity (b, n, c): evaluated for the images, answered for the others."""
        if len(images) == len(x):
            return flow.velocity(x, sigma, encodings=encodings)
        v = ran_v if self.keep == "velocity" else x + (ran_v - ran_x)
        if images:
            rows = torch.tensor(images, device=x.device)
            v = v.index_copy(0, rows, flow.velocity(x, sigma, encodings=encodings, images=images))
        return v


def size(x: Tensor) -> Tensor:
    """Mean magnitude of each image's entries, (b, n, c) -> (b,)."""
    return x.float().abs().mean((1, 2))

"""EasyCache: skip the model while its output is expected to change little (arXiv:2507.02860)."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class EasyCache(Cache):
    """The expected change of the velocity is the change of the input times the rate between the two at the
    last two evaluations. While its sum since the last evaluation is below the threshold, nothing runs. The
    last step always runs. Each image decides for itself, based on its guided velocity.

    threshold: tau, for the summed relative change.
    retention: share of first steps that all run (5 of 50 for HunyuanVideo, 10 of 50 for Wan).
    rule: "paper" measures the change of the input from the previous step. "comfyui" measures it from the last
        evaluated step, so that the sum grows quadratically; ComfyUI uses tau 0.2 and retention 0.15. (It also
        looks at every eighth pixel only, and runs the last 5 % of the steps.)
    keep: what is reused from the last evaluated step: velocity minus input, as released, or the velocity
        itself, which is exact on a straight path.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.05
    retention: Annotated[float, Field(ge=0, le=1)] = 0.1
    rule: Literal["paper", "comfyui"] = "paper"
    keep: Literal["difference", "velocity"] = "difference"

    off: ClassVar = {"threshold": 0.0}

    def saves(self, steps):
        """True if a step can be skipped: the rate is known from the third step on, and the last step runs."""
        return max(2, round(self.retention * steps)) < steps - 1

    def start(self, flow, steps):
        drift = torch.zeros(len(flow.generators), device=flow.device)
        rate = torch.full_like(drift, torch.nan)  # unknown until two steps have run; NaN < threshold is false
        before = ran_x = ran_v = None  # previous input; input and output of the last evaluation

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
        """Return the velocity (b, n, c), evaluated for `images` and reused for the others."""
        if len(images) == len(x):
            return flow.velocity(x, sigma, encodings=encodings)
        v = ran_v if self.keep == "velocity" else x + (ran_v - ran_x)
        if images:
            rows = torch.tensor(images, device=x.device)
            v = v.index_copy(0, rows, flow.velocity(x, sigma, encodings=encodings, images=images))
        return v


def size(x: Tensor) -> Tensor:
    """Return the mean magnitude of each image's entries, (b, n, c) -> (b,)."""
    return x.float().abs().mean((1, 2))

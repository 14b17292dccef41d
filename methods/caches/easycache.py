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
        drift = torch.zeros(len(flow.generators), device=flow.device, dtype=torch.float32)
        rate = torch.full_like(drift, torch.nan)  # unknown until two steps have run; NaN < threshold is false
        before = last_x = last_v = None  # previous input; input and output of the last evaluation

        def velocity(step, x, sigma, encodings=None):
            nonlocal drift, rate, before, last_x, last_v
            if last_v is None or not round(self.retention * steps) <= step < steps - 1:
                must_run = torch.ones_like(drift, dtype=torch.bool)
                images = [*range(len(drift))]
            else:
                drift = drift + rate * mean_magnitude(x - before) / mean_magnitude(last_v)
                must_run = ~(drift < self.threshold)
                flow.compared.append(drift)
                images = [i for i, runs in enumerate(must_run.tolist()) if runs]
            v = self.velocity_of_due(flow, x, sigma, encodings, images, last_x, last_v)
            drift = drift.masked_fill(must_run, 0.0)
            if last_v is not None:
                rate = torch.where(must_run, mean_magnitude(v - last_v) / mean_magnitude(x - last_x), rate)
            if last_x is None or last_v is None:
                last_x, last_v = x, v
            else:
                run = must_run[:, None, None]
                last_x, last_v = torch.where(run, x, last_x), torch.where(run, v, last_v)
            before = x if self.rule == "paper" else last_x
            return v

        return velocity

    def velocity_of_due(self, flow, x, sigma, encodings, images, last_x, last_v) -> Tensor:
        """Return the velocity (b, n, c), evaluated for `images` and reused for the others."""
        if len(images) == len(x):
            return flow.velocity(x, sigma, encodings=encodings)
        v = last_v if self.keep == "velocity" else x + (last_v - last_x)
        if images:
            rows = torch.tensor(images, device=x.device)
            v = v.index_copy(0, rows, flow.velocity(x, sigma, encodings=encodings, images=images))
        return v


def mean_magnitude(x: Tensor) -> Tensor:
    """Return the mean magnitude of each image's entries, (b, n, c) -> (b,)."""
    return x.float().abs().mean((1, 2))

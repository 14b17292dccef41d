"""Drift: dense steps where the velocity drifts most; forecasts between them, corrected at a few tokens."""

from itertools import pairwise
from math import exp
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.schedules import stretched
from fovea.methods.selection import Missed, distance
from fovea.methods.tokens import drawn, euler, put
from fovea.models.tokens import take


@dataclass(frozen=True, config={"extra": "forbid"})
class Drift:
    """Fovea's own method; its ingredients can be disabled one by one (docs/methods.md has the gain of each).

    Between dense steps the velocity of a token follows the line through its last two dense velocities. k
    steps ahead its slope is scaled by exp(-damping (k - 1)). Only dense steps define slopes, because a token
    evaluated in between attends to stale keys. Step 0 is excluded, because its velocity is that of pure noise
    and lies on no line with the others.

    full, of: the dense steps, including 0, of a run of `of` steps, chosen by dynamic programming on dense
        runs where reuse would be most wrong (`python -m scripts.calibrate`). None makes every other step
        dense.
    ratio: share of the tokens evaluated on the other steps. Their deviation from the forecast is kept until
        the next dense step.
    selection: which tokens these are. "error": those with the largest expected error, which is the forecast
        error when last known, per step, times the steps since. "random": the control. "oracle": those with
        the largest true error, at the cost of a dense evaluation.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    full: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    of: Annotated[int, Field(ge=1)] | None = None
    damping: Annotated[float, Field(ge=0)] = 0.0
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    selection: Literal["error", "random", "oracle"] = "error"

    off: ClassVar[dict[str, Any]] = {"ratio": 1.0}
    diagnosis: ClassVar[dict[str, Any]] = {"selection": "oracle"}

    def __post_init__(self):
        if (self.full is None) != (self.of is None):
            raise ValueError(f"full={self.full}, of={self.of}: give both or neither")
        if self.full and (0 not in self.full or max(self.full) >= (self.of or 0)):
            raise ValueError(f"full={list(self.full)}, of={self.of}: must hold 0, and be less than `of`")

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas, kv, known = flow.noise(), flow.sigmas(self.steps), flow.new_kv(), Missed()
        full, k = self.dense(len(sigmas) - 1), round(self.ratio * x.shape[1])
        value = left = torch.zeros_like(x)  # velocity of the last dense step; forecast for this step
        slope = offset = None  # of the velocity, per step; deviations from the forecast since
        seen = 0
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            rows, left = None, self.forecast(value, slope, offset, i - seen)
            if i in full or k == x.shape[1]:
                v = flow.velocity(x, s, kv=kv if k else None)
                slope, offset = (v - value) / (i - seen) if seen else None, None
                value, seen = v, i
            elif k:
                rows = self.score(flow, known, i, x, s, left).topk(k).indices  # (b, k)
                new = flow.velocity(x, s, kv=kv, rows=rows)
                v = put(left, rows, new)
                offset = v - left if offset is None else offset + (v - left)
            else:
                rows, v = torch.empty(len(x), 0, dtype=torch.long, device=x.device), left
            if k:
                own, told = (t if rows is None else take(t, rows) for t in (v, left if i else v))
                known.update(i, own, told, told, rows)
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

    def dense(self, steps: int) -> frozenset[int]:
        """Return the dense steps of a run."""
        if self.full is None or self.of is None:
            return frozenset(range(0, steps, 2))
        return frozenset(stretched(self.full, self.of, steps))

    def forecast(self, value: Tensor, slope: Tensor | None, offset: Tensor | None, ahead: int) -> Tensor:
        """Return the velocity (b, n, c) `ahead` steps after the last dense one."""
        if slope is not None:
            value = value + slope * (ahead * exp(-self.damping * (ahead - 1)))
        return value if offset is None else value + offset

    def score(self, flow, known: Missed, step: int, x: Tensor, sigma: Tensor, left: Tensor) -> Tensor:
        """Return a score (b, n); the tokens with the highest are evaluated."""
        if self.selection == "random":
            return drawn(flow, x)
        if self.selection == "oracle":
            return distance(flow.velocity(x, sigma), left)
        return known.error * (step - known.seen)

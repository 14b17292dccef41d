"""RAS, region-adaptive sampling: evaluate only the tokens in focus (Liu et al. 2025, arXiv:2502.10389)."""

from itertools import pairwise
from math import prod
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods import ras_ablations as ablations
from fovea.methods.caches.taylor_output import TaylorOutput
from fovea.methods.selection import Rule
from fovea.methods.sparsity import Sparsity
from fovea.methods.tokens import euler_step


@dataclass(frozen=True, config={"extra": "forbid"})
class RAS(Sparsity):
    """Region-adaptive sampling: every token takes every Euler step, but only active tokens are evaluated.

    An inactive token reuses its last velocity. Active tokens attend to all tokens through the cached keys and
    values of the inactive ones.

    selection: score by which tokens are ranked: "std", the standard deviation of a token's velocity over the
        channels, or "l2norm", its norm. The others are controls and rules from `methods.selection`; `ageing`
        applies to those.
    high_ratio: share of the inactive tokens taken from the top of the ranking; the rest are taken from the
        bottom. At 1 the lowest scores are active, where the paper sees the main subject (section 3.2). At 0
        the highest are active, which only the sign in its eq. 1 supports. Which is right depends on the
        model: `python -m scripts.calibrate` finds it.
    starvation: k in eq. 1. Each step that a token is inactive scales its score by exp(k), as printed, if it
        was at the bottom of the ranking, or by exp(-k) if it was at the top: either way towards being active.
    as_released, ageing, stale, cache, kv: not part of the paper's method; see `methods.ras_ablations`. Nor is
        text="keep".
    """

    selection: Literal["std", "l2norm", "random", "oracle"] | Rule = "std"
    high_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    starvation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    as_released: bool = False
    ageing: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    stale: Literal["reuse", "taylor"] = "reuse"
    cache: TaylorOutput | None = None
    kv: bool = True

    off: ClassVar[dict[str, Any]] = {"ratio": 1.0, "cache": None}
    diagnosis: ClassVar[dict[str, Any]] = {"selection": "oracle"}

    def __post_init__(self):
        super().__post_init__()
        if self.cache is not None and self.cache.order > 1:
            raise ValueError(f"cache.order={self.cache.order}: must be 0 or 1, a token keeps two values")
        if self.text == "keep" and not self.kv:
            raise ValueError("text=keep, kv=false: the text's keys and values are kept only with kv=true")
        if self.as_released:
            ablations.check(self)

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if schedule or released rule do not fit the steps and tokens."""
        ablations.inactive_by_rank(self, prod(grid), steps)

    def saves(self, steps: int) -> bool:
        cached = self.cache is not None and self.cache.saves(steps if self.steps is None else self.steps)
        return cached or super().saves(steps)

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        return self.sample(flow, flow.noise(), flow.sigmas(self.steps), on_step)

    def sample(self, flow, x, sigmas, on_step=None):
        """Integrate x (b, n, c) from sigmas[0] to sigmas[-1]."""
        n, state = x.shape[1], ablations.TokenState(self, flow)
        # inactive tokens, at the bottom and at the top of the ranking
        inactive = ablations.inactive_by_rank(self, n, len(sigmas) - 1)
        k, sign = ablations.starvation(self)
        # steps inactive at the bottom minus at the top
        starved = torch.zeros(x.shape[:2], device=x.device, dtype=torch.float32)
        up, down = torch.ones_like(starved), torch.full_like(starved, sign)
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            low, high = inactive[i]
            if not state.runs(i):
                rows, v = starved.new_empty(len(x), 0, dtype=torch.long), state.forecast(i)
            elif low + high == 0:
                rows, v = None, state.dense(i, x, s, before_sparse=state.sparse_follows(i, inactive))
            else:
                score = ablations.score(self, flow, state, i, x, s, v)  # (b, n)
                order = (score * (k * starved).exp()).argsort(-1)
                starved.scatter_add_(1, order[:, :low], up).scatter_add_(1, order[:, n - high :], down)
                rows = order[:, low : n - high]  # (b, k)
                v = state.sparse(i, x, s, rows)
            x = euler_step(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

    def score(self, v, flow):
        """Score tokens (b, n) by the std or norm of v (b, n, c) over channels, averaged over its pixels."""
        v = v.float().unflatten(-1, (-1, flow.pixels))  # (b, n, c / pixels, pixels)
        return (v.norm(dim=2) if self.selection == "l2norm" else v.std(2)).mean(-1)

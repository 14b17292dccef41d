"""RAS: take every Euler step, but evaluate only the tokens in focus (Liu et al. 2025, arXiv:2502.10389)."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods import ras_ablations as ablations
from fovea.methods.caches.taylor_output import TaylorOutput
from fovea.methods.selection import Rule
from fovea.methods.sparsity import Sparsity
from fovea.methods.tokens import euler


@dataclass(frozen=True, config={"extra": "forbid"})
class RAS(Sparsity):
    """Region-adaptive sampling: a token left out keeps its last velocity and, in `kv`, its keys and values.

    selection: tokens are ranked by the standard deviation of their velocity over channels ("std") or by its
        "l2norm"; others are controls and rules of `methods.selection`, with `ageing` their own.
    high_ratio: share of the tokens left out that top the ranking; the others end it. At 1 the lowest run,
        where the paper sees the main subject (section 3.2); at 0 the highest, which only the sign of its
        eq. 1 supports. Which end is right is the model's: `python -m scripts.calibrate` finds it.
    starvation: k of eq. 1. A token left out has its score moved by exp(starvation) towards those that run,
        each time: up, as printed, where it ended the ranking, and down where it topped it.
    as_released, ageing, stale, cache, kv: not the paper's method, see `methods.ras_ablations`.
    """

    selection: Literal["std", "l2norm", "random", "oracle"] | Rule = "std"
    high_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    starvation: Annotated[float, Field(ge=0)] = 0.1
    as_released: bool = False
    ageing: Annotated[float, Field(ge=0)] = 1.0
    stale: Literal["reuse", "taylor"] = "reuse"
    cache: TaylorOutput | None = None
    kv: bool = True

    off: ClassVar[dict[str, Any]] = {"ratio": 1.0, "cache": None}
    diagnosis: ClassVar[dict[str, Any]] = {"selection": "oracle"}

    def __post_init__(self):
        super().__post_init__()
        if self.cache is not None and self.cache.order > 1:
            raise ValueError(f"cache.order={self.cache.order}: must be 0 or 1, a token keeps two values")
        if self.as_released:
            ablations.check(self)

    def saves(self, steps: int) -> bool:
        cached = self.cache is not None and self.cache.saves(steps if self.steps is None else self.steps)
        return cached or super().saves(steps)

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        return self.sample(flow, flow.noise(), flow.sigmas(self.steps), on_step)

    def sample(self, flow, x, sigmas, on_step=None):
        """From the state x (b, n, c) at sigmas[0] to that at sigmas[-1]."""
        n, kept = x.shape[1], ablations.Kept(self, flow)
        ends = ablations.ends(self, n, len(sigmas) - 1)  # left out of each step, at the bottom and at the top
        k, sign = ablations.starvation(self)
        debt = torch.zeros(x.shape[:2], device=x.device)  # times left out at the bottom less those at the top
        up, down = torch.ones_like(debt), torch.full_like(debt, sign)
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            low, high = ends[i]
            if not kept.runs(i):
                rows, v = debt.new_empty(len(x), 0, dtype=torch.long), kept.forecast(i)
            elif low + high == 0:
                rows, v = None, kept.dense(i, x, s, before_sparse=kept.sparse_follows(i, ends))
            else:
                score = ablations.score(self, flow, kept, i, x, s, v)  # (b, n)
                order = (score * (k * debt).exp()).argsort(-1)
                debt.scatter_add_(1, order[:, :low], up).scatter_add_(1, order[:, n - high :], down)
                rows = order[:, low : n - high]  # (b, k)
                v = kept.sparse(i, x, s, rows)
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

    def score(self, v, flow):
        """Of each token's velocity, the mean over its latent pixels: (b, n, c) -> (b, n)."""
        v = v.float().unflatten(-1, (-1, flow.pixels))  # (b, n, c / pixels, pixels)
        return (v.norm(dim=2) if self.selection == "l2norm" else v.std(2)).mean(-1)

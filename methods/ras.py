"""RAS: take every Euler step, but evaluate only the tokens in focus (Liu et al. 2025, arXiv:2502.10389)."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods import released
from fovea.methods.caches.taylor_output import TaylorOutput
from fovea.methods.forecast import TokenForecast
from fovea.methods.sparsity import Sparsity
from fovea.methods.tokens import euler, take


@dataclass(frozen=True, config={"extra": "forbid"})
class RAS(Sparsity):
    """Region-adaptive sampling: a token left out keeps its last velocity and, in `kv`, its keys and values.

    selection: tokens are ranked by the "std" of their velocity over channels, its "l2norm", or at "random".
    high_ratio: share of the tokens left out that top the ranking; the others end it. At 0 the highest run:
        the formula as printed; at 1 the lowest, where the paper sees the main subject.
    starvation: a token left out has its score moved by exp(starvation) towards those that run, each time.
    as_released: the rule of the authors' code instead (`methods.released`).
    stale: the velocity of a token left out is its last ("reuse"), or goes on as it changed between its last
        two evaluations ("taylor"): not in the paper.
    cache: steps that are not evaluated at all: every token's velocity is forecast.
    kv: tokens that run attend to all, through the keys and values kept; else to one another alone, as in the
        paper's ablation.
    """

    selection: Literal["std", "l2norm", "random"] = "std"
    high_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    starvation: Annotated[float, Field(ge=0)] = 0.1
    as_released: bool = False
    stale: Literal["reuse", "taylor"] = "reuse"
    cache: TaylorOutput | None = None
    kv: bool = True

    off: ClassVar[dict[str, Any]] = {"ratio": 1.0, "cache": None}

    def __post_init__(self):
        super().__post_init__()
        if self.as_released:
            released.check(self)
        if self.cache is not None and self.cache.order > 1:
            raise ValueError(f"cache.order={self.cache.order}: must be 0 or 1, a token keeps two values")

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        return self.sample(flow, flow.noise(), flow.sigmas(self.steps), on_step)

    def sample(self, flow, x, sigmas, on_step=None):
        """From the state x (b, n, c) at sigmas[0] to that at sigmas[-1]."""
        (b, n, _), kv = x.shape, flow.new_kv()
        ends = (released.ends if self.as_released else RAS.ends)(self, n, len(sigmas) - 1)
        runs = [self.cache is None or self.cache.runs(i) for i in range(len(ends))]
        kept = kept_for_next(ends, runs)
        debt = torch.zeros(b, n, device=x.device)  # times left out at the bottom, less those at the top
        up, down = torch.ones_like(debt), torch.full_like(debt, 1 if self.as_released else -1)
        stale = int(self.stale == "taylor")
        memory = TokenForecast(max(stale, self.cache.order if self.cache else 0))
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            low, high = ends[i]
            if self.cache and not runs[i]:
                rows, v = debt.new_empty(b, 0, dtype=torch.long), memory.at(i, self.cache.order)
            elif low + high == 0:
                rows, v = None, flow.velocity(x, s, kv=kv if kept[i] and self.kv else None)
                memory.update(i, v)
            else:
                order = (self.score(v, flow) * (self.starvation * debt).exp()).argsort(-1)  # (b, n)
                debt.scatter_add_(1, order[:, :low], up).scatter_add_(1, order[:, n - high :], down)
                rows = order[:, low : n - high]  # (b, k)
                memory.update(i, self.velocity(flow, x, s, kv, rows), rows)
                v = memory.at(i, stale)
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

    def velocity(self, flow, x, s, kv, rows):
        """Of the tokens `rows` (b, k): (b, k, c)."""
        if self.kv:
            return flow.velocity(x, s, kv=kv, rows=rows)
        at = flow.grid.positions(x.device).expand(len(x), -1, -1)
        return flow.velocity(take(x, rows), s, places=flow.places(take(at, rows)))

    def score(self, v, flow):
        """Spread of each token's velocity, averaged over its latent pixels: (b, n, c) -> (b, n)."""
        if self.selection == "random":
            return torch.stack(
                [torch.rand(v.shape[1], generator=g, device=g.device) for g in flow.generators]
            ).to(v.device)
        v = v.float().unflatten(-1, (-1, flow.pixels))  # (b, n, c / pixels, pixels)
        return (v.std(2) if self.selection == "std" else v.norm(dim=2)).mean(-1)

    def ends(self, n, steps):
        """How many tokens each step leaves out at the bottom and at the top of the ranking."""
        return [(m - round(self.high_ratio * m), round(self.high_ratio * m)) for m in self.left_out(n, steps)]


def kept_for_next(ends, runs):
    """Whether the next step that is evaluated, after each, is sparse and so needs keys and values."""
    kept, sparse = [], False
    for low_and_high, run in zip(reversed(ends), reversed(runs), strict=True):
        kept.append(sparse)
        sparse = sum(low_and_high) > 0 if run else sparse
    return kept[::-1]

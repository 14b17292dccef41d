"""RAS: take every Euler step, but evaluate only the tokens in focus (Liu et al. 2025, arXiv:2502.10389)."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from methods import released
from methods.sparsity import Sparsity
from methods.tokens import euler, put


@dataclass(frozen=True, config={"extra": "forbid"})
class RAS(Sparsity):
    """Region-adaptive sampling: a token left out keeps its last velocity and, in `kv`, its keys and values.

    selection: tokens are ranked by the "std" of their velocity over channels, or by its "l2norm".
    high_ratio: share of the tokens left out that top the ranking; the others end it. At 0 the highest run:
        the formula as printed; at 1 the lowest, where the paper sees the main subject.
    starvation: a token left out has its score moved by exp(starvation) towards those that run, each time.
    as_released: the rule of the authors' code instead (`methods.released`).
    """

    selection: Literal["std", "l2norm"] = "std"
    high_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    starvation: Annotated[float, Field(ge=0)] = 0.1
    as_released: bool = False

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        return self.sample(flow, flow.noise(), flow.sigmas(self.steps), on_step)

    def sample(self, flow, x, sigmas, on_step=None):
        """From the state x (b, n, c) at sigmas[0] to that at sigmas[-1]."""
        (b, n, _), kv = x.shape, flow.new_kv()
        ends = [*(released.ends if self.as_released else RAS.ends)(self, n, len(sigmas) - 1), (0, 0)]
        debt = torch.zeros(b, n, device=x.device)  # times left out at the bottom, less those at the top
        up, down = torch.ones_like(debt), torch.full_like(debt, 1 if self.as_released else -1)
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            low, high = ends[i]
            if low + high == 0:
                rows, v = None, flow.velocity(x, s, kv=kv if sum(ends[i + 1]) else None)
            else:
                order = (self.score(v, flow.pixels) * (self.starvation * debt).exp()).argsort(-1)  # (b, n)
                debt.scatter_add_(1, order[:, :low], up).scatter_add_(1, order[:, n - high :], down)
                rows = order[:, low : n - high]  # (b, k)
                v = put(v, rows, flow.velocity(x, s, kv=kv, rows=rows))
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

    def score(self, v, pixels):
        """Spread of each token's velocity, averaged over its latent pixels: (b, n, c * pixels) -> (b, n)."""
        v = v.float().unflatten(-1, (-1, pixels))  # (b, n, c, pixels)
        return (v.std(2) if self.selection == "std" else v.norm(dim=2)).mean(-1)

    def ends(self, n, steps):
        """How many tokens each step leaves out at the bottom and at the top of the ranking."""
        return [(m - round(self.high_ratio * m), round(self.high_ratio * m)) for m in self.left_out(n, steps)]

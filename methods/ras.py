"""RAS: take every Euler step, but evaluate only the tokens in focus (Liu et al. 2025, arXiv:2502.10389)."""

from collections.abc import Callable
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
    """Region-adaptive sampling. A token left out keeps its last velocity here, and its last keys and values in `kv`.

    Tokens are ranked by how much their velocity varies over channels. Those left out on a sparse step are the two ends of the
    ranking: a share `high_ratio` of them at its top, the rest at its bottom (1: the lowest run, where the paper sees the main
    subject; 0: the highest). Each time a token is left out its score moves by exp(starvation) back towards the middle.

    selection: spread of the velocity over channels ("std"), or its size ("l2norm"), averaged over the token's latent pixels.
    as_released: the rule of the authors' code in place of the paper's: scores of tokens left out always rise, also of those
        left out at the top, which keeps them out; token counts truncate where ours round; starvation must be 0.1, the only one it knows.
    """

    high_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    starvation: Annotated[float, Field(ge=0)] = 0.1
    selection: Literal["std", "l2norm"] = "std"
    as_released: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.as_released and self.starvation != 0.1:
            raise ValueError(
                f"starvation={self.starvation}: the released code ignores it and uses 0.1; set 0.1 or as_released=false"
            )

    def left_out(self, n: int, steps: int) -> list[tuple[int, int]]:
        """Tokens left out at the bottom and at the top of the ranking, at each step."""
        if self.as_released:
            return released.ends(released.skipped(self, n, steps), self.high_ratio)
        rest = [n - k for k in self.kept(n, steps)]
        return [(m - round(self.high_ratio * m), round(self.high_ratio * m)) for m in rest]

    def score(self, v, flow):
        """Focus of each token: (b, n, c * pixels) -> (b, n)."""
        pixels = v.float().unflatten(-1, (-1, flow.pixels))  # (b, n, c, pixels)
        return (pixels.std(2) if self.selection == "std" else pixels.norm(dim=2)).mean(-1)

    @torch.no_grad()
    def __call__(self, flow, on_step: Callable | None = None):
        x, sigmas, kv = flow.noise(), flow.sigmas(self.steps), flow.new_kv()
        b, n, _ = x.shape
        ends = self.left_out(n, len(sigmas) - 1)
        times_out = torch.zeros(b, n, device=x.device)
        up = torch.ones_like(times_out)
        down = up if self.as_released else -up
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            low, high = ends[i]
            if low + high == 0:
                rows, v = None, flow.velocity(x, s, kv=kv)
            else:
                order = (self.score(v, flow) * (self.starvation * times_out).exp()).argsort(-1)  # (b, n)
                rows = order[:, low : n - high]  # (b, k)
                times_out.scatter_add_(1, order[:, :low], up).scatter_add_(1, order[:, n - high :], down)
                v = put(v, rows, flow.velocity(x, s, kv=kv, rows=rows))
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

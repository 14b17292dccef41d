"""The control that RAS must beat: as many tokens at the same steps, chosen at random."""

from itertools import pairwise

import torch
from pydantic.dataclasses import dataclass

from methods.sparsity import Sparsity
from methods.tokens import euler, put


@dataclass(frozen=True, config={"extra": "forbid"})
class Random(Sparsity):
    """Random token selection, an ablation of RAS (arXiv:2502.10389); each image has its own generator."""

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas, kv = flow.noise(), flow.sigmas(self.steps), flow.new_kv()
        n = x.shape[1]
        left_out = [*self.left_out(n, len(sigmas) - 1), 0]
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            if left_out[i] == 0:
                rows, v = None, flow.velocity(x, s, kv=kv if left_out[i + 1] else None)
            else:
                order = torch.stack(
                    [torch.randperm(n, generator=g, device=g.device) for g in flow.generators]
                )
                rows = order[:, left_out[i] :].to(x.device)  # (b, k)
                v = put(v, rows, flow.velocity(x, s, kv=kv, rows=rows))
            x = euler(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x

"""Muon for many matrices at once: those of one shape are orthogonalised as one batch.

torch.optim.Muon goes from matrix to matrix, 16 launches each: with some 80 small ones, half of those of a
training step. Nor can its learning rate change inside a CUDA graph. The algorithm is the same.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration: singular values go to about 1 in five


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values brought near 1, in bfloat16."""
    a, b, c = QUINTIC
    wide = x.shape[-2] <= x.shape[-1]
    x = (x if wide else x.mT).bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), its size matched to AdamW's (2502.16982, eq. 4).

    `lr` is a tensor on the parameters' device, so that it may change between replays of a graph.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: torch.Tensor,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        shapes = defaultdict(list)
        for p in params:
            shapes[p.shape].append(p)
        groups = [{"params": found} for found in shapes.values()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]  # the same ones at every step
            if not params:
                continue
            lr, momentum = group["lr"], group["momentum"]
            grad = torch.stack([p.grad for p in params])
            state = self.state[params[0]]  # of all of the group
            mean = state.setdefault("momentum", torch.zeros_like(grad))
            mean.lerp_(grad, 1 - momentum)
            update = orthogonal(grad.lerp_(mean, momentum)) * (lr * 0.2 * math.sqrt(max(grad.shape[1:])))
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_sub_(params, list(update))  # pyright: ignore[reportPrivateImportUsage]

"""Muon that orthogonalises all matrices of one shape as one batch.

torch.optim.Muon processes one matrix after another with 16 kernel launches each: for about 80 small matrices,
half of the launches of a training step. Its learning rate cannot change inside a CUDA graph either. The
algorithm is the same.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients: singular values reach about 1 in five steps


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of matrices (n, rows, columns) near 1; returns bfloat16."""
    a, b, c = QUINTIC
    wide = x.shape[-2] <= x.shape[-1]
    x = (x if wide else x.mT).bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al. 2024), with updates scaled to AdamW's (arXiv:2502.16982, eq. 4).

    lr: a tensor on the parameters' device, so that it can change between replays of a CUDA graph.
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
            params = [p for p in group["params"] if p.grad is not None]  # the same at every step
            if not params:
                continue
            lr, momentum = group["lr"], group["momentum"]
            grad = torch.stack([p.grad for p in params])
            state = self.state[params[0]]  # the first parameter holds the state of the whole group
            mean = state.setdefault("momentum", torch.zeros_like(grad))
            mean.lerp_(grad, 1 - momentum)
            update = orthogonal(grad.lerp_(mean, momentum)) * (lr * 0.2 * math.sqrt(max(grad.shape[1:])))
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_sub_(params, list(update))  # pyright: ignore[reportPrivateImportUsage]

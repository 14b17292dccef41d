"""Operations on tokens: write rows per image, draw random numbers, and take an Euler step."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def scatter_tokens(
    x: Float[Tensor, "b n c"], rows: Int[Tensor, "b k"], values: Float[Tensor, "b k c"]
) -> Float[Tensor, "b n c"]:
    """Return x with `values` written to the given rows of each image."""
    return x.scatter(1, rows[..., None].expand_as(values), values)


def euler_step(
    x: Float[Tensor, "b n c"], v: Float[Tensor, "b n c"], ds: Float[Tensor, ""]
) -> Float[Tensor, "b n c"]:
    """Return x + ds * v, computed in float32 as flow-matching pipelines do, in the dtype of v."""
    return (x.float() + ds * v).to(v.dtype)


def uniform(flow, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
    """Return a uniform number in [0, 1) for each token of x, drawn from each image's own generator."""
    n, kind = x.shape[1], torch.float32  # whatever torch's default is
    draws = [torch.rand(n, generator=g, device=g.device, dtype=kind) for g in flow.generators]
    return torch.stack(draws).to(x.device)

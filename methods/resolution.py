"""Tokens at two resolutions: at half resolution one token stands for 2 x 2 (RALU, Lift)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fovea.models.tokens import Grid, gather_tokens, pack, unpack

CHILDREN = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))  # positions within the parent's cell


def check_even(rows: int, columns: int) -> None:
    """Raise ValueError if the grid cannot be halved."""
    if rows % 2 or columns % 2:
        raise ValueError(
            f"{rows} x {columns} tokens cannot be halved: height and width must be multiples of 2 tokens"
        )


def half_grid(grid: Grid) -> Grid:
    """Return the grid with half the rows and columns. ValueError if they are not even."""
    check_even(*grid)
    return Grid(grid.rows // 2, grid.columns // 2)


def halve(x: Tensor, grid: tuple[int, int], pixels: int) -> Tensor:
    """Keep every second latent pixel in each direction, so that noise (b, n, c) stays noise (b, n / 4, c).

    ValueError if the grid is not even.
    """
    check_even(*grid)
    p = round(pixels**0.5)
    return pack(unpack(x, Grid(*grid), p)[..., ::2, ::2], p)


def split(x: Tensor, positions: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace the tokens `rows` (b, k) of x (b, n, c), at `positions` (b, n, 2), by four copies each.

    Returns the new tokens, their positions, and their parents (b, n + 3 k): first the n - k other tokens in
    order, then the copies, the four of a token in sequence.
    """
    b, n, _ = x.shape
    kept = torch.ones(b, n, dtype=torch.bool, device=x.device).scatter(1, rows, False)
    kept = kept.long().argsort(dim=1, descending=True, stable=True)[:, : n - rows.shape[1]]
    parents = torch.cat([kept, rows.repeat_interleave(4, 1)], 1)
    children = gather_tokens(positions, parents)
    offsets = children.new_tensor(CHILDREN).repeat(rows.shape[1], 1)
    children[:, kept.shape[1] :] += offsets
    return gather_tokens(x, parents), children, parents


def coupled_noise(
    generators: Sequence[torch.Generator], kept: int, copies: int, channels: int, c: float, iid: bool = False
) -> Tensor:
    """Return noise (b, kept + copies, channels) to add to tokens after `split`.

    The four copies of a token get covariance I - c 11', the other tokens variance 1 - c. Added to the noise
    already in the tokens, each entry then has the variance of the next stage's start. No matrix is needed:
    for four independent normals z with mean m, z + (sqrt(1 - 4 c) - 1) m has this covariance.

    iid: give the other tokens variance 1.
    """
    size = kept + copies, channels
    draws = (torch.randn(size, generator=g, device=g.device, dtype=torch.float32) for g in generators)
    z = torch.stack([*draws])
    four = z[:, kept:].unflatten(1, (-1, 4))  # (b, copies / 4, 4, channels)
    four = four + ((1 - 4 * c) ** 0.5 - 1) * four.mean(2, keepdim=True)
    return torch.cat([z[:, :kept] * (1 if iid else (1 - c) ** 0.5), four.flatten(1, 2)], 1)

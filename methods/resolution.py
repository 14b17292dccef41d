"""Tokens of two sizes: half resolution, where one token stands for 2 x 2, and the step from there (RALU)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fovea.models.tokens import Grid, pack, take, unpack

CHILDREN = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5))  # positions in their parent's cell


def even(rows: int, columns: int) -> None:
    """ValueError where the grid cannot be halved."""
    if rows % 2 or columns % 2:
        raise ValueError(
            f"{rows} x {columns} tokens cannot be halved: height and width must be multiples of 2 tokens"
        )


def halved_grid(grid: Grid) -> Grid:
    """Half as many rows and columns."""
    even(*grid)
    return Grid(grid.rows // 2, grid.columns // 2)


def halved(x: Tensor, grid: tuple[int, int], pixels: int) -> Tensor:
    """Every second pixel of the latent, row and column: noise (b, n, c) as noise (b, n / 4, c).

    ValueError where the grid is not even.
    """
    even(*grid)
    p = round(pixels**0.5)
    return pack(unpack(x, Grid(*grid), p)[..., ::2, ::2], p)


def split(x: Tensor, at: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens x (b, n, c) at positions `at` (b, n, 2) with those in `rows` (b, k) replaced by four copies.

    Gives the new tokens, their positions, and their parents (b, n + 3 k): first the n - k that were kept, in
    order, then the copies, each token's four together.
    """
    b, n, _ = x.shape
    kept = torch.ones(b, n, dtype=torch.bool, device=x.device).scatter(1, rows, False)
    kept = kept.long().argsort(dim=1, descending=True, stable=True)[:, : n - rows.shape[1]]
    parents = torch.cat([kept, rows.repeat_interleave(4, 1)], 1)
    positions = take(at, parents)
    offsets = positions.new_tensor(CHILDREN).repeat(rows.shape[1], 1)
    positions[:, kept.shape[1] :] += offsets
    return take(x, parents), positions, parents


def coupled(
    generators: Sequence[torch.Generator], kept: int, copies: int, channels: int, c: float, iid: bool = False
) -> Tensor:
    """Noise (b, kept + copies, channels) to add to tokens after `split`.

    Copies of one token get covariance I - c 11' over the four, the others variance 1 - c: each entry then
    has the variance that the noise left in the token complements to that of the next stage's start. For four
    independent normals z of mean m, z + (sqrt(1 - 4 c) - 1) m has that covariance: no matrix is needed.
    iid: leave the kept ones at variance 1.
    """
    draws = (torch.randn(kept + copies, channels, generator=g, device=g.device) for g in generators)
    z = torch.stack([*draws])
    four = z[:, kept:].unflatten(1, (-1, 4))  # (b, copies / 4, 4, channels)
    four = four + ((1 - 4 * c) ** 0.5 - 1) * four.mean(2, keepdim=True)
    return torch.cat([z[:, :kept] * (1 if iid else (1 - c) ** 0.5), four.flatten(1, 2)], 1)

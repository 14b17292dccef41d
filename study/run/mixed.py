"""Tokens of two sizes (RALU) laid out on the full grid, so that they can be compared with the dense ones."""

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """token (b, n): which token stands for each place of the full grid, in reading order. level (b, n): 1
    where it stands for that place alone, 2 where for 2 x 2 places."""

    token: Tensor
    level: Tensor


def layout(at: Tensor, grid: tuple[int, int]) -> Layout:
    """at: places (b, m, 2) of the tokens on the half-resolution grid: whole numbers for tokens of half
    resolution, steps of a half, in fours, for others. grid: rows and columns at full resolution."""
    rows, columns = grid
    b, m = at.shape[:2]
    spot = (2 * at).round().long()
    place = spot[..., 0] * columns + spot[..., 1]  # (b, m): the first place that each token stands for
    token = torch.full((b, rows * columns), -1, device=at.device)
    token = token.scatter(1, place, torch.arange(m, device=at.device).expand(b, m))
    four = token.unflatten(1, (rows // 2, 2, columns // 2, 2))
    coarse = (four[:, :, :1, :, 1:] < 0).expand_as(four)  # nobody right of the first of four: it has them all
    token = torch.where(coarse, four[:, :, :1, :, :1], four)
    return Layout(token.flatten(1), 1 + coarse.long().flatten(1))


def laid_out(x: Tensor, where: Layout, grid: tuple[int, int], pixels: int) -> Tensor:
    """Tokens x (b, m, c) as those of the full grid (b, n, c): a latent pixel of a token at half resolution
    covers 2 x 2 of them there. pixels: latent pixels in a token, in rows and columns."""
    b, _, c = x.shape
    own = x.gather(1, where.token[..., None].expand(-1, -1, c)).unflatten(2, (-1, pixels))
    quarter = quarters(grid, round(pixels**0.5)).to(x.device).expand(b, -1, -1)  # (b, n, pixels)
    whole = torch.arange(pixels, device=x.device).expand_as(quarter)
    pixel = torch.where((where.level == 2)[..., None], quarter, whole)
    return own.gather(3, pixel[:, :, None].expand(-1, -1, own.shape[2], -1)).flatten(2)


def quarters(grid: tuple[int, int], p: int) -> Tensor:
    """Of each place, which pixel of the p x p of the token that covers it and three others lies under each of
    its own: (n, p * p)."""
    rows, columns = grid
    down, right = (((torch.arange(size)[:, None] % 2) * p + torch.arange(p)) // 2 for size in (rows, columns))
    both = down[:, None, :, None] * p + right[None, :, None, :]  # (rows, columns, p, p)
    return both.flatten(2).flatten(0, 1)

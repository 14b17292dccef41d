"""Rules that rank tokens for a sparse step by what is known about them; the highest are evaluated.

Known about a token are its velocity when last evaluated, the number of steps since (its age), and the error
of its cached velocity at that time. `python -m scripts.selections` compares the rules with random selection
and with an oracle that knows each token's current error: it reports the share of the oracle's gain over
random that a rule achieves.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.methods.regions import gradient
from fovea.methods.tokens import scatter_tokens
from fovea.models.tokens import Grid, gather_tokens, unpack

Rule = Literal["edges", "grid", "age", "change", "error", "neighbours"]


class TokenHistory:
    """Records about the tokens of one trajectory, (b, n) each.

    last_step: step at which a token was last evaluated.
    change: distance between its velocity then and the one before, per step in between.
    error: distance between its velocity then and the one used for it until then, per step in between.
    """

    def __init__(self):
        self.last_step = self.change = self.error = torch.empty(0)

    def update(self, step: int, new: Tensor, old: Tensor, reused: Tensor, rows: Tensor | None) -> None:
        """Record the velocity `new` of the evaluated tokens, (b, k, c).

        old: their velocity before.
        reused: the velocity that the cache would have used instead.
        rows: which tokens these are, (b, k); None for all.
        """
        if not len(self.last_step):
            self.change = self.error = torch.zeros_like(new[..., 0], dtype=torch.float32)
            self.last_step = torch.full_like(self.change, step)
            return
        span = step - (self.last_step if rows is None else gather_tokens(self.last_step, rows))
        now = torch.full_like(span, step), distance(new, old) / span, distance(new, reused) / span
        if rows is not None:
            kept = (self.last_step, self.change, self.error)
            now = tuple(
                scatter_tokens(t[..., None], rows, v[..., None])[..., 0]
                for t, v in zip(kept, now, strict=True)
            )
        self.last_step, self.change, self.error = now


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).norm(dim=-1)


def score(
    rule: Rule, ageing: float, history: TokenHistory, step: int, grid: Grid, image: Tensor, p: int
) -> Tensor:
    """Return the score of each token, (b, n).

    ageing: the rule's score is multiplied by the token's age to this power.
    image: estimate (b, n, c) of the image.
    p: side of a token in latent pixels.
    """
    age = step - history.last_step
    if rule == "grid":
        return -bayer_ranks(grid, age.device).expand_as(age)
    if rule == "age":
        return age - bayer_ranks(grid, age.device)
    if rule == "edges":
        values = F.avg_pool2d(gradient(unpack(image.float(), grid, p)), p).flatten(1)
    else:
        values = history.change if rule == "change" else history.error
        if rule == "neighbours":
            values = F.avg_pool2d(
                values.unflatten(1, grid)[:, None], 3, 1, 1, count_include_pad=False
            ).flatten(1)
    return values * age**ageing if ageing else values


def bayer_ranks(grid: Grid, device: torch.device) -> Tensor:
    """Return ranks (n,) in [0, 1) of a grid's tokens; any lowest share is evenly spread (Bayer 1973)."""
    bits = max(*grid, 2).bit_length()
    row, column = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    rank = torch.zeros_like(row)
    for bit in range(bits):
        rank = 4 * rank + 2 * ((row ^ column) >> bit & 1) + (row >> bit & 1)
    return rank.flatten().float() / 4**bits

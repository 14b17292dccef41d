"""Which tokens a sparse step runs: rules that rank tokens by what is known of them, the highest first.

What is known of a token is its velocity when it last ran, how long ago that was (its age), and what its kept
velocity missed then. `python -m scripts.selections` compares them with random tokens and with the oracle,
which knows what each token misses now: how much of its gain over random a rule finds.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.methods.regions import gradient
from fovea.methods.tokens import put
from fovea.models.tokens import Grid, take, unpack

Rule = Literal["edges", "grid", "age", "change", "error", "neighbours"]


class Missed:
    """What is known of the tokens of one trajectory, by step: (b, n) each.

    seen: the step that a token last ran at. change, error: how far its velocity then was from the one before,
    and from what was taken for it until then, per step between.
    """

    def __init__(self):
        self.seen = self.change = self.error = torch.empty(0)

    def update(self, step: int, new: Tensor, old: Tensor, left: Tensor, rows: Tensor | None) -> None:
        """new, old, left: velocity of the tokens that run, (b, k, c), the one before, and what was taken."""
        if not len(self.seen):
            self.change = self.error = torch.zeros_like(new[..., 0], dtype=torch.float32)
            self.seen = torch.full_like(self.change, step)
            return
        span = step - (self.seen if rows is None else take(self.seen, rows))
        now = torch.full_like(span, step), distance(new, old) / span, distance(new, left) / span
        if rows is not None:
            kept = (self.seen, self.change, self.error)
            now = tuple(put(t[..., None], rows, v[..., None])[..., 0] for t, v in zip(kept, now, strict=True))
        self.seen, self.change, self.error = now


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).norm(dim=-1)


def score(rule: Rule, ageing: float, known: Missed, step: int, grid: Grid, image: Tensor, p: int) -> Tensor:
    """Of each token, (b, n). ageing: power of a token's age that the rule is multiplied by. image: estimate
    (b, n, c) whose tokens are p latent pixels to a side."""
    age = step - known.seen
    if rule == "grid":
        return -dithered(grid, age.device).expand_as(age)
    if rule == "age":
        return age - dithered(grid, age.device)
    if rule == "edges":
        found = F.avg_pool2d(gradient(unpack(image.float(), grid, p)), p).flatten(1)
    else:
        found = known.change if rule == "change" else known.error
        if rule == "neighbours":
            found = F.avg_pool2d(found.unflatten(1, grid)[:, None], 3, 1, 1, count_include_pad=False).flatten(
                1
            )
    return found * age**ageing if ageing else found


def dithered(grid: Grid, device: torch.device) -> Tensor:
    """Ranks (n,) in [0, 1) of the tokens of a grid, any first share of which lies evenly (Bayer 1973)."""
    bits = max(*grid, 2).bit_length()
    row, column = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    rank = torch.zeros_like(row)
    for bit in range(bits):
        rank = 4 * rank + 2 * ((row ^ column) >> bit & 1) + (row >> bit & 1)
    return rank.flatten() / 4**bits

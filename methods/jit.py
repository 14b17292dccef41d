"""JiT: evaluate a few anchor tokens and interpolate the velocity of the others (arXiv:2603.10744)."""

from functools import reduce
from itertools import pairwise
from math import ceil, exp
from operator import add
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.methods.selection import bayer_ranks
from fovea.methods.tokens import euler_step, scatter_tokens, uniform
from fovea.models.tokens import Grid, gather_tokens, pack, unpack

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class JiT:
    """The model runs on anchor tokens alone, which attend to one another and to the text. Every other token
    takes the velocity of its nearest anchor, blurred. Each stage adds anchors; in the last stage all tokens
    are anchors.

    steps: number of steps; 18 is the preset 4x. The preset 7x is steps=11 with ratio=(0.32, 0.6).
    ratio: share of the tokens that are anchors, for each stage except the last.
    ends: share of the steps at which each of these stages ends.
    relax: how far a new anchor moves from its state towards the image estimated from the old anchors, noised
        again. 1 in the paper, 1/3 in the released code.
    selection: where anchors are added: where the velocity varies most, or as controls at random or on an even
        grid.
    levels: "beta" for the authors' noise levels, even quantiles of Beta(1.4, 0.425), or "model" for the
        model's own.

    Differences from the released code: it draws the noise outside the user's generator; and if its initial
        grid and border have too many anchors, it drops some at random, whereas here the border is dropped
        first.
    """

    steps: Annotated[int, Field(ge=2, le=10_000)] | None = 18
    ratio: tuple[Share, ...] = (0.35, 0.62)
    ends: tuple[Share, ...] = (0.4, 0.65)
    relax: Annotated[float, Field(ge=0, le=1)] = 1.0
    selection: Literal["variance", "random", "grid"] = "variance"
    levels: Literal["beta", "model"] = "beta"

    off: ClassVar[dict[str, Any]] = {"ratio": (1.0, 1.0), "levels": "model"}

    def __post_init__(self):
        if len(self.ratio) != len(self.ends):
            raise ValueError(f"ratio={list(self.ratio)}, ends={list(self.ends)}: must have the same length")
        if list(self.ratio) != sorted(self.ratio) or list(self.ends) != sorted(self.ends):
            raise ValueError(f"ratio={list(self.ratio)}, ends={list(self.ends)}: must be in ascending order")

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError for a grid (rows, columns) of a single row or column, and for a single step."""
        if min(grid) < 2:
            raise ValueError(f"{grid[0]} x {grid[1]} tokens: JiT needs at least 2 rows and 2 columns of them")
        if steps < 2:
            raise ValueError(f"steps={steps}: JiT needs at least 2")

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        self.check(flow.grid, flow.steps if self.steps is None else self.steps)
        x = flow.noise()  # (b, n, c)
        n, positions = x.shape[1], flow.grid.positions(x.device).expand(len(x), -1, -1)
        sigmas = self.noise_levels(flow)
        counts = self.anchor_counts(n, len(sigmas) - 1)
        z = flow.noise() if counts[0] < n else x
        rows, v, encodings = self.initial_anchors(flow, x, counts[0]), x, None
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            if counts[i] > rows.shape[1]:
                new_anchors = self.additional_anchors(flow, v, rows, counts[i] - rows.shape[1])
                image = interpolate(gather_tokens(x.float() - s * v, rows), rows, flow.grid)
                target = gather_tokens((1 - s) * image + s * z, new_anchors).to(x.dtype)
                x = scatter_tokens(
                    x, new_anchors, torch.lerp(gather_tokens(x, new_anchors), target, self.relax)
                )
                rows = torch.cat([rows, new_anchors], 1).sort().values
            if i == 0 or counts[i] > counts[i - 1]:
                encodings = flow.encodings(gather_tokens(positions, rows)) if counts[i] < n else None
            if encodings is None:
                v = flow.velocity(x, s)
            else:
                v = interpolate(
                    flow.velocity(gather_tokens(x, rows), s, encodings=encodings), rows, flow.grid
                )
            x = euler_step(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=None if encodings is None else rows)
        return x

    def noise_levels(self, flow) -> Tensor:
        if self.levels == "model":
            return flow.sigmas(self.steps)
        from scipy.stats import beta  # slow to import

        last = (self.steps or flow.steps) - 1
        shares = [beta.ppf(1 - j / last, 1.4, 0.425) for j in range(last + 1)]
        levels = [(1 + last * share) / (last + 1) for share in shares]
        return torch.tensor([*levels, 0.0], device=flow.device, dtype=torch.float32)

    def anchor_counts(self, n: int, steps: int) -> list[int]:
        """Return the number of anchors at each step, of n tokens."""
        ends = [int(steps * end) for end in self.ends]
        stage = [sum(i >= end for end in ends) for i in range(steps)]
        return [max(int(n * (*self.ratio, 1.0)[k]), 1) for k in stage]

    def initial_anchors(self, flow, x: Tensor, m: int) -> Tensor:
        """Return the first m anchors, (b, m): every second row and column, the border, and random others."""
        row, column = flow.grid.positions(flow.device).long().T
        even = (row % 2 == 0) & (column % 2 == 0)
        edge = (row % (flow.grid.rows - 1) == 0) | (column % (flow.grid.columns - 1) == 0)
        wanted = even | edge if int((even | edge).sum()) <= m else even
        score = uniform(flow, x) + (0 if self.selection == "random" else wanted.float())
        return score.topk(m).indices.sort().values

    def additional_anchors(self, flow, v: Tensor, rows: Tensor, k: int) -> Tensor:
        """Return k tokens (b, k) that become anchors in addition to `rows`."""
        if self.selection == "random":
            score = uniform(flow, v)
        elif self.selection == "grid":
            score = -bayer_ranks(flow.grid, v.device).expand(len(v), -1)
        else:
            field = unpack(v.float(), flow.grid, 1)
            mean, square = (F.avg_pool2d(t, 3, 1, 1) for t in (field, field**2))
            score = (square - mean**2).mean(1).flatten(1)
        return score.scatter(1, rows, -torch.inf).topk(k).indices


def interpolate(values: Tensor, rows: Tensor, grid: Grid) -> Tensor:
    """Interpolate a field (b, n, c) from its values (b, m, c) at the anchors `rows`.

    Other tokens get the value of the nearest anchor (the first of equals), smoothed by a Gaussian blur.
    """
    positions = grid.positions(values.device).long()
    m = rows.shape[1]
    squared_distance = (positions[None, :, None] - positions[rows][:, None]).square().sum(-1)  # (b, n, m)
    nearest = (squared_distance * m + torch.arange(m, device=values.device)).argmin(-1)
    blurred = blur(
        unpack(gather_tokens(values, nearest).float(), grid, 1), max(0.4 / (m / grid.n) ** 0.5, 1.0)
    )
    return scatter_tokens(pack(blurred, 1).to(values.dtype), rows, values)


def blur(field: Tensor, deviation: float) -> Tensor:
    """Apply a Gaussian blur, truncated at three standard deviations, to (b, c, h, w)."""
    reach = ceil(3 * deviation)
    weights = [exp(-0.5 * (j / deviation) ** 2) for j in range(-reach, reach + 1)]
    mode = "reflect" if reach < min(field.shape[2:]) else "replicate"
    field = F.pad(field, (reach,) * 4, mode=mode)
    for axis in (2, 3):
        size = field.shape[axis] - 2 * reach
        weighted = (w * field.narrow(axis, j, size) for j, w in enumerate(weights))
        field = reduce(add, weighted) / sum(weights)
    return field

"""FreqCa: low and high spatial frequencies are forecast each in their own way (arXiv:2510.08669)."""

import math

import torch
from torch import Tensor

from fovea.methods.forecast import Differences, Values
from fovea.models.tokens import Grid


class Bands:
    """Forecast of tokens (b, n, d) on a grid, as the sum of two bands of a discrete cosine transform over it.

    grid: the tokens' grid.
    cutoff: frequencies up to this share of the largest, measured from the origin, are low.
    low, high: forecasts of the two bands.

    The authors' code takes the grid to be square, where the share of frequencies is that of their indices.
    """

    def __init__(self, grid: Grid, cutoff: float, low: Differences, high: Differences):
        self.grid, self.cutoff, self.low, self.high = grid, cutoff, low, high

    def update(self, step: int, values: Values) -> None:
        low = tuple(low_pass(value.float(), self.grid, self.cutoff) for value in values)
        self.low.update(step, low)
        self.high.update(step, tuple(value.float() - part for value, part in zip(values, low, strict=True)))
        self.dtypes = [value.dtype for value in values]

    def predict(self, step: int) -> Values:
        bands = zip(self.low.predict(step), self.high.predict(step), self.dtypes, strict=True)
        return tuple((low + high).to(dtype) for low, high, dtype in bands)


def low_pass(x: Tensor, grid: Grid, cutoff: float) -> Tensor:
    """Return the part of x (b, n, d) on a grid of tokens that low frequencies make up; see `Bands`."""
    frequencies = [torch.arange(side, device=x.device) / side for side in grid]
    radius = torch.hypot(frequencies[0][:, None], frequencies[1])  # (rows, columns)
    kept = radius <= cutoff * radius[-1, -1]
    rows, columns = (cosines(side, x.device)[: math.ceil(cutoff * side * 2**0.5) + 1] for side in grid)
    kept = kept[: len(rows), : len(columns), None]
    spectrum = torch.einsum("ur,brcd,vc->buvd", rows, x.unflatten(1, tuple(grid)), columns) * kept
    return torch.einsum("ur,buvd,vc->brcd", rows, spectrum, columns).flatten(1, 2)


def cosines(n: int, device: torch.device) -> Tensor:
    """Return the matrix of the orthonormal discrete cosine transform of n values: row u is frequency u."""
    at = torch.arange(n, device=device, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.float()

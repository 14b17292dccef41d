"""FreqCa: low and high spatial frequencies are forecast each in their own way (arXiv:2510.08669)."""

import math

import torch
from torch import Tensor

from fovea.methods.bases import Basis
from fovea.methods.forecast import Values
from fovea.models.tokens import Grid


class LowPass:
    """Keeps the low frequencies of tokens on a grid, by a discrete cosine transform over it.

    grid: the tokens' grid.
    cutoff: frequencies up to this share of the largest, measured from the origin, are low. The authors' code
        takes the grid to be square, where that is the share of their indices.
    """

    def __init__(self, grid: Grid, cutoff: float, device: torch.device):
        self.grid = tuple(grid)
        rows, columns = (torch.arange(side) / side for side in grid)
        radius = torch.hypot(rows[:, None], columns)  # (rows, columns)
        low = radius <= cutoff * radius[-1, -1]
        self.rows, self.columns = (
            cosines(side, device)[: int(low.any(axis).sum())] for axis, side in ((1, grid[0]), (0, grid[1]))
        )
        self.low = low[: len(self.rows), : len(self.columns), None].to(device)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the low-frequency part of x (b, n, d)."""
        field = x.unflatten(1, self.grid)
        spectrum = torch.einsum("ur,brcd,vc->buvd", self.rows, field, self.columns) * self.low
        return torch.einsum("ur,buvd,vc->brcd", self.rows, spectrum, self.columns).flatten(1, 2)


class Bands:
    """Forecast of tokens (b, n, d) on a grid, as the sum of two bands of spatial frequency.

    low, high: forecasts of the two bands.
    """

    def __init__(self, low_pass: LowPass, low: Basis, high: Basis):
        self.low_pass, self.low, self.high = low_pass, low, high

    def update(self, step: int, values: Values) -> None:
        low = tuple(self.low_pass(value.float()) for value in values)
        self.low.update(step, low)
        self.high.update(step, tuple(value.float() - part for value, part in zip(values, low, strict=True)))
        self.dtypes = [value.dtype for value in values]

    def predict(self, step: int) -> Values:
        bands = zip(self.low.predict(step), self.high.predict(step), self.dtypes, strict=True)
        return tuple((low + high).to(dtype) for low, high, dtype in bands)


def cosines(n: int, device: torch.device) -> Tensor:
    """Return the matrix of the orthonormal discrete cosine transform of n values: row u is frequency u."""
    at = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.float().to(device)

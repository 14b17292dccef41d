"""One batch of images to be made, as a velocity field on tokens: all that an acceleration method sees."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.kv import KV
from models.tokens import Conditioning, Grid, Places

if TYPE_CHECKING:
    from models.model import Model


@dataclass(frozen=True, eq=False)
class Flow:
    """dx/dsigma = velocity(x, sigma), from noise at sigma = 1 to the image at sigma = 0.

    x: tokens (b, n, c), row-major over `grid`; each is one patch of the latent, flattened as (channel, row,
    column). generators: one per image; every random number of an image comes from its own. steps: the number
    of steps asked for. evaluated: tokens per image of every velocity call so far.
    """

    model: "Model"
    cond: Conditioning
    grid: Grid
    generators: Sequence[torch.Generator]
    steps: int
    evaluated: list[int] = field(default_factory=list)

    @cached_property
    def _places(self) -> Places:
        return self.model.places(self.grid)

    @property
    def pixels(self) -> int:
        """Latent pixels in a token: its channels are c / pixels."""
        return self.model.patch**2

    def noise(self, grid: Grid | None = None) -> Float[Tensor, "b n c"]:
        """The next draw of each image's generator, as the pipeline would draw it."""
        return self.model.noise(self.generators, grid or self.grid)

    def sigmas(self, steps: int | None = None, grid: Grid | None = None) -> Float[Tensor, " steps_and_1"]:
        """The pipeline's own noise levels, from 1 to 0."""
        return self.model.sigmas(steps or self.steps, grid or self.grid)

    def places(self, positions: Float[Tensor, "b n 2"] | None = None, grid: Grid | None = None) -> Places:
        """Positional encodings of `grid`, or of tokens at (row, column) `positions` in units of its cells."""
        if positions is None and grid is None:
            return self._places
        return self.model.places(grid or self.grid, positions)

    def new_kv(self) -> KV:
        return self.model.new_kv()

    def velocity(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        *,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
        places: Places | None = None,
    ) -> Float[Tensor, "b k c"]:
        """Velocity of the tokens `rows` (all if None), guidance included. See `Model.velocity`."""
        self.evaluated.append(x.shape[1] if rows is None else rows.shape[1])
        return self.model.velocity(x, sigma, self.cond, places or self._places, kv, rows)

    def decode(self, x: Float[Tensor, "b n c"], grid: Grid | None = None) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1]."""
        return self.model.decode(x, grid or self.grid)

    def flops(self, active: int | None = None) -> int:
        """FLOPs of one velocity call for one image of this batch, on `active` tokens (all if None)."""
        return self.model.flops(self.grid, active, text=self.cond.text, guided=self.cond.guided)

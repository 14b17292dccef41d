"""One batch of images to be made, as a velocity field on tokens: all that an acceleration method sees."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fovea.models.block_runs import BlockRun
from fovea.models.blockwise import Evaluation
from fovea.models.hidden import Hidden
from fovea.models.kv import KV
from fovea.models.pipeline import Pipeline
from fovea.models.tokens import Conditioning, Encodings, Grid
from fovea.models.transformer import Transformer


@dataclass(frozen=True, eq=False)
class Flow:
    """dx/dsigma = velocity(x, sigma), from noise at sigma = 1 to the image at sigma = 0.

    x: tokens (b, n, c), row-major over `grid`; each is one patch of the latent, flattened as (channel, row,
    column). generators: one per image; every random number of an image comes from its own. steps: the number
    of steps asked for. block_runs: what ran so far; decoded, encoded: grids of the images that were on the
    way; beside: FLOPs per image of whatever else ran on it, each to be counted when asked for. compared: what
    a cache set against its threshold where it might have answered, of each image.
    """

    transformer: Transformer
    pipeline: Pipeline
    cond: Conditioning
    grid: Grid
    generators: Sequence[torch.Generator]
    steps: int
    block_runs: list[BlockRun] = field(default_factory=list)
    decoded: list[Grid] = field(default_factory=list)
    encoded: list[Grid] = field(default_factory=list)
    beside: list[Callable[[], int]] = field(default_factory=list)
    compared: list[Sequence[float] | Tensor] = field(default_factory=list)

    @cached_property
    def _encodings(self) -> Encodings:
        return self.transformer.encodings(self.grid)

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def shift(self) -> float:
        """h of the pipeline's schedule, in which an even u becomes sigma = h u / (1 + (h - 1) u)."""
        return self.pipeline.shift(self.steps, self.grid)

    @property
    def pixels(self) -> int:
        """Latent pixels in a token: its channels are c / pixels."""
        return self.transformer.patch**2

    def noise(self, grid: Grid | None = None) -> Float[Tensor, "b n c"]:
        """The next draw of each image's generator, as the pipeline would draw it."""
        return self.pipeline.noise(self.generators, grid or self.grid)

    def sigmas(
        self, steps: int | None = None, grid: Grid | None = None, like: int | None = None
    ) -> Float[Tensor, " steps_and_1"]:
        """The pipeline's own noise levels, from 1 to 0. like: see `Pipeline.sigmas`."""
        return self.pipeline.sigmas(self.steps if steps is None else steps, grid or self.grid, like)

    def encodings(
        self, positions: Float[Tensor, "b n 2"] | None = None, grid: Grid | None = None
    ) -> Encodings:
        """Positional encodings of `grid`, or of tokens at (row, column) `positions` in units of its cells."""
        if positions is None and grid is None:
            return self._encodings
        return self.transformer.encodings(grid or self.grid, positions)

    def new_kv(self) -> KV:
        """An empty memory for one trajectory."""
        return KV()

    def velocity(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        *,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
        encodings: Encodings | None = None,
        images: Sequence[int] | None = None,
    ) -> Float[Tensor, "i k c"]:
        """Velocity of the tokens `rows` (all if None), guidance included. See `Transformer.velocity`.

        images: which of the batch alone are evaluated, all of their tokens; without `kv` and `rows`.
        """
        k, n, encodings, cond = (
            x.shape[1] if rows is None else rows.shape[1],
            x.shape[1],
            encodings or self._encodings,
            self.cond,
        )
        if images is not None:
            x, encodings, cond = x[[*images]], encodings.of(images), cond.of(images)
        self._note(k, n, len(self.transformer.blocks), images)
        return self.transformer.velocity(x, sigma, cond, encodings, kv, rows)

    def open(
        self, x: Float[Tensor, "b n c"], sigma: Float[Tensor, ""], encodings: Encodings | None = None
    ) -> Evaluation:
        """The evaluation of all tokens, to be run block by block by the caller; see `Evaluation`."""
        self._note(x.shape[1], x.shape[1], 0)
        own, encodings = self.transformer, encodings or self._encodings
        entered = [own.enter(x, sigma, half, encodings) for half in self.cond.passes]
        states, contexts = zip(*entered, strict=True)
        hidden = states[0] if len(states) == 1 else Hidden.join(states)
        return Evaluation(own, self.cond, len(self.generators), self.block_runs, hidden, contexts)

    def _note(self, k: int, n: int, blocks: int, images: Sequence[int] | None = None) -> None:
        chosen = range(len(self.generators)) if images is None else images
        self.block_runs.append(BlockRun(k, n, 0, blocks, tuple(chosen), ends=True))

    def decode(
        self, x: Float[Tensor, "b n c"], grid: Grid | None = None, raw: bool = False
    ) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1]. raw: as the autoencoder gives them, in [-1, 1] and somewhat beyond."""
        self.decoded.append(grid or self.grid)
        return (self.pipeline.decoded if raw else self.pipeline.decode)(x, grid or self.grid)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Tokens of images in [0, 1]: what `decode` gives, back again but for what the autoencoder loses."""
        self.encoded.append(self.pipeline.grid(*images.shape[2:]))
        return self.pipeline.encoded(2 * images - 1)

    def least_compared(self) -> float | None:
        """Where a cache answered nothing, the threshold above which it would have; None without one."""
        found = [value for each in self.compared for value in torch.as_tensor(each).tolist()]
        return min((value for value in found if math.isfinite(value)), default=None)

    def of(self, image: int, since: int = 0, until: int | None = None) -> list[BlockRun]:
        """What ran for one image, between two entries of the list."""
        return [w for w in self.block_runs[since:until] if image in w.images]

    def blocks(self, image: int = 0, since: int = 0, until: int | None = None) -> int:
        """Executions of transformer blocks for one image."""
        return sum(w.blocks for w in self.of(image, since, until))

    def tokens(self, image: int = 0, since: int = 0, until: int | None = None) -> float:
        """Evaluations of one token by the whole transformer, its blocks counted as equal shares of it."""
        return sum(w.k * w.blocks for w in self.of(image, since, until)) / len(self.transformer.blocks)

    def flops(self, image: int = 0) -> int:
        """FLOPs of the transformer for one image so far, by the closed form, and of what ran on the way."""
        alike = Counter(run._replace(images=()) for run in self.of(image))  # of many steps, few runs differ
        evaluated = sum(
            times * self.transformer.flops(run, text=half.text, guided=half.guided)
            for run, times in alike.items()
            for half in self.cond.passes
        )
        decoded = sum(map(self.pipeline.decode_flops, self.decoded))
        encoded = sum(map(self.pipeline.encode_flops, self.encoded))
        return evaluated + decoded + encoded + sum(counted() for counted in self.beside)

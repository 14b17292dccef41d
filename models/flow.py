"""A batch of images to sample, as a velocity field on tokens: all that an acceleration method sees."""

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

    x denotes tokens (b, n, c), in row-major order over `grid`; each is one patch of the latent, flattened as
    (channel, row, column).

    generators: one per image; all random numbers of an image come from its own.
    steps: requested number of steps.
    block_runs: what the transformer has run so far.
    decoded_grids, encoded_grids: grids of the images decoded and encoded on the way.
    extra_flops: functions returning the FLOPs per image of anything else that ran.
    compared: per image, the values that a cache compared with its threshold when deciding whether to skip.
    """

    transformer: Transformer
    pipeline: Pipeline
    cond: Conditioning
    grid: Grid
    generators: Sequence[torch.Generator]
    steps: int
    block_runs: list[BlockRun] = field(default_factory=list)
    decoded_grids: list[Grid] = field(default_factory=list)
    encoded_grids: list[Grid] = field(default_factory=list)
    extra_flops: list[Callable[[], int]] = field(default_factory=list)
    compared: list[Sequence[float] | Tensor] = field(default_factory=list)

    @cached_property
    def _encodings(self) -> Encodings:
        return self.transformer.encodings(self.grid)

    @cached_property
    def _prompted(self) -> Conditioning:
        return self.cond.prompted()

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def shift(self) -> float:
        """Shift h of the pipeline's schedule, which maps an even u to sigma = h u / (1 + (h - 1) u)."""
        return self.pipeline.shift(self.steps, self.grid)

    @property
    def pixels(self) -> int:
        """Number of latent pixels per token; c / pixels is the number of channels."""
        return self.transformer.patch**2

    def noise(self, grid: Grid | None = None) -> Float[Tensor, "b n c"]:
        """Draw noise from each image's generator, as the pipeline would."""
        return self.pipeline.noise(self.generators, grid or self.grid)

    def sigmas(
        self, steps: int | None = None, grid: Grid | None = None, schedule_steps: int | None = None
    ) -> Float[Tensor, " steps_and_1"]:
        """Return the pipeline's own noise levels, from 1 to 0; see `Pipeline.sigmas`."""
        return self.pipeline.sigmas(self.steps if steps is None else steps, grid or self.grid, schedule_steps)

    def encodings(
        self, positions: Float[Tensor, "b n 2"] | None = None, grid: Grid | None = None
    ) -> Encodings:
        """Return positional encodings of `grid`, or of tokens at (row, column) `positions` in its cells."""
        if positions is None and grid is None:
            return self._encodings
        return self.transformer.encodings(grid or self.grid, positions)

    def new_kv(self) -> KV:
        """Return an empty cache of keys and values for one trajectory."""
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
        keep_text: bool = False,
        guided: bool = True,
    ) -> Float[Tensor, "i k c"]:
        """Return the guided velocity of the tokens `rows` (all if None). See `Transformer.evaluate`.

        images: evaluate only these images of the batch, all of their tokens; not combined with `kv` or
            `rows`.
        guided: False for the velocity by the prompt alone, which costs half; not combined with `kv`.
        """
        k, n = x.shape[1] if rows is None else rows.shape[1], x.shape[1]
        cond = self.cond if guided else self._prompted
        x, encodings, cond = self._select_images(x, encodings or self._encodings, cond, images)
        self._record_run(k, n, len(self.transformer.blocks), images, keep_text, prompted_only=not guided)
        return self.transformer.velocity(x, sigma, cond, encodings, kv, rows, keep_text)

    def halves(
        self, x: Float[Tensor, "b n c"], sigma: Float[Tensor, ""], images: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "i n c"], Float[Tensor, "i n c"]]:
        """Return the velocities (with, without) the prompt that `guide` combines.

        They are the same if the flow is not guided.
        """
        n = x.shape[1]
        self._record_run(n, n, len(self.transformer.blocks), images)
        x, encodings, cond = self._select_images(x, self._encodings, self.cond, images)
        v = self.transformer.evaluate(x, sigma, cond, encodings)
        return cond.split(v) if cond.guided else (v, v)

    def guide(
        self, with_prompt: Float[Tensor, "i n c"], without_prompt: Float[Tensor, "i n c"]
    ) -> Float[Tensor, "i n c"]:
        """Combine the velocities of `halves` as the pipeline does: equals `velocity` bit for bit."""
        v = self.cond.join(with_prompt, without_prompt) if self.cond.guided else with_prompt
        return self.transformer.guide(v, self.cond, self._encodings)

    def prepare(
        self, x: Float[Tensor, "b n c"], sigma: Float[Tensor, ""], encodings: Encodings | None = None
    ) -> Evaluation:
        """Start an evaluation of all tokens that the caller runs block by block; see `Evaluation`."""
        self._record_run(x.shape[1], x.shape[1], 0)
        transformer, encodings = self.transformer, encodings or self._encodings
        entered = [transformer.prepare(x, sigma, half, encodings) for half in self.cond.passes]
        states, contexts = zip(*entered, strict=True)
        hidden = states[0] if len(states) == 1 else Hidden.cat(states)
        b = len(self.generators)
        return Evaluation(transformer, self.cond, encodings, b, self.block_runs, hidden, contexts)

    def _select_images(
        self, x: Tensor, encodings: Encodings, cond: Conditioning, images: Sequence[int] | None
    ) -> tuple[Tensor, Encodings, Conditioning]:
        if images is None:
            return x, encodings, cond
        return x[[*images]], encodings.select_images(images), cond.select_images(images)

    def _record_run(
        self,
        k: int,
        n: int,
        blocks: int,
        images: Sequence[int] | None = None,
        kept_text: bool = False,
        prompted_only: bool = False,
    ) -> None:
        chosen = tuple(range(len(self.generators)) if images is None else images)
        run = BlockRun(k, n, 0, blocks, chosen, outer=True, kept_text=kept_text, prompted_only=prompted_only)
        self.block_runs.append(run)

    def decode(
        self, x: Float[Tensor, "b n c"], grid: Grid | None = None, raw: bool = False
    ) -> Float[Tensor, "b 3 h w"]:
        """Decode to images in [0, 1]; raw=True returns the autoencoder's output, about [-1, 1]."""
        self.decoded_grids.append(grid or self.grid)
        return (self.pipeline.decode_raw if raw else self.pipeline.decode)(x, grid or self.grid)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Encode images in [0, 1] to tokens: the inverse of `decode` up to the autoencoder's loss."""
        self.encoded_grids.append(self.pipeline.grid(*images.shape[2:]))
        return self.pipeline.encode_raw(2 * images - 1)

    def min_compared(self) -> float | None:
        """Return the smallest finite value compared with a cache's threshold; None if there is none.

        For a cache that skipped nothing, this is the threshold above which it would have.
        """
        found = [value for each in self.compared for value in torch.as_tensor(each).tolist()]
        return min((value for value in found if math.isfinite(value)), default=None)

    def block_runs_of(self, image: int, since: int = 0, until: int | None = None) -> list[BlockRun]:
        """Return the block runs of one image, from entry `since` to `until` of the list."""
        return [w for w in self.block_runs[since:until] if image in w.images]

    def blocks(self, image: int = 0, since: int = 0, until: int | None = None) -> int:
        """Number of transformer blocks executed for one image, with or without guidance alike."""
        return sum(w.blocks for w in self.block_runs_of(image, since, until))

    def tokens(self, image: int = 0, since: int = 0, until: int | None = None) -> float:
        """Number of evaluations of a token by the whole transformer, for one image; blocks count equally."""
        return sum(w.k * w.blocks for w in self.block_runs_of(image, since, until)) / len(
            self.transformer.blocks
        )

    def flops(self, image: int = 0) -> int:
        """FLOPs for one image so far: transformer (closed form), decoding, encoding, `extra_flops`."""
        alike = Counter(
            run._replace(images=()) for run in self.block_runs_of(image)
        )  # most steps run the same blocks
        evaluated = sum(
            times * self.transformer.flops(run, text=half.text, guided=half.guided)
            for run, times in alike.items()
            for half in (self._prompted if run.prompted_only else self.cond).passes
        )
        decoded = sum(map(self.pipeline.decode_flops, self.decoded_grids))
        encoded = sum(map(self.pipeline.encode_flops, self.encoded_grids))
        return evaluated + decoded + encoded + sum(counted() for counted in self.extra_flops)

"""Tokens: their grid, positions and layout in a latent, and the prompts they are conditioned on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor


class Grid(NamedTuple):
    """Number of rows and columns of tokens."""

    rows: int
    columns: int

    @property
    def n(self) -> int:
        return self.rows * self.columns

    def positions(self, device: torch.device | str | None = None) -> Float[Tensor, "n 2"]:
        """Return (row, column) of every token in row-major order."""
        axes = (torch.arange(size, device=device) for size in self)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1).float()


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Encoded prompts for the transformer, with everything precomputed that is constant over a trajectory.

    embeds: embedded text tokens (b', text, d); b' is b, or 2b with the two guidance halves in the family's
        order.
    prompted_half: which of the two halves has the prompt; 0 if they are separate passes.
    constants: terms to add to the time embedding (b', time), in order.
    guidance: scale of classifier-free guidance.
    forward_kwargs: the same prompts as keyword arguments of the transformer's own forward.
    mask: valid text tokens.
    keys: keys and values of the text by attention layer (Lumina).
    tables: positional encodings that depend on the prompts, (1 or b', ...).
    separate_passes: the guidance halves as separate conditionings, if the pipeline evaluates them one after
        the other; see `conditioning_in_passes`.
    norm_limit: maximum norm of the guided velocity relative to the prompted one (Z-Image).
    normalised: give each row of latent pixels of the guided velocity the prompted one's norm
        (Lumina-Image 2.0).
    """

    embeds: Float[Tensor, "b text d"]
    constants: tuple[Float[Tensor, "b time"], ...]
    guided: bool
    guidance: float
    forward_kwargs: dict[str, Any]
    mask: Tensor | None = None
    keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    tables: tuple[Tensor, ...] = ()
    separate_passes: tuple["Conditioning", ...] = ()
    norm_limit: float = math.inf
    normalised: bool = False
    prompted_half: Literal[0, 1] = 0

    @property
    def text(self) -> int:
        return self.embeds.shape[1]

    @property
    def halves(self) -> int:
        """Number of evaluations per image."""
        return 2 if self.guided else 1

    @property
    def passes(self) -> tuple["Conditioning", ...]:
        """Conditionings to evaluate in turn: a single one for all, or one per guidance half."""
        return self.separate_passes or (self,)

    def select_images(self, images: Sequence[int]) -> "Conditioning":
        """Select some images of the batch, without `forward_kwargs`, which hold the whole batch."""
        b = len(self.embeds) // self.halves
        rows = [half * b + i for half in range(self.halves) for i in images]
        passes = tuple(half.select_images(images) for half in self.separate_passes)
        return replace(self._select_rows(rows), forward_kwargs={}, separate_passes=passes)

    def split(self, v: Float[Tensor, "_ k c"]) -> tuple[Tensor, Tensor]:
        """Return the guidance halves (with, without) the prompt of v, given in the family's order."""
        first, second = v.chunk(2)
        return (second, first) if self.prompted_half else (first, second)

    def join(
        self, v_cond: Float[Tensor, "i k c"], v_uncond: Float[Tensor, "i k c"]
    ) -> Float[Tensor, "_ k c"]:
        """The inverse of `split`."""
        return torch.cat([v_uncond, v_cond] if self.prompted_half else [v_cond, v_uncond])

    def prompted(self) -> "Conditioning":
        """Return the half with the prompt alone, without guidance."""
        if not self.guided:
            return self
        if self.separate_passes:
            return self.separate_passes[0]
        b = len(self.embeds) // 2
        rows = slice(self.prompted_half * b, (self.prompted_half + 1) * b)
        forward_kwargs = {key: value[rows] for key, value in self.forward_kwargs.items()}
        return replace(self._select_rows(rows), guided=False, forward_kwargs=forward_kwargs)

    def _select_rows(self, rows: list[int] | slice) -> "Conditioning":
        return replace(
            self,
            embeds=self.embeds[rows],
            constants=tuple(t[rows] for t in self.constants),
            mask=None if self.mask is None else self.mask[rows],
            keys={layer: (k[rows], v[rows]) for layer, (k, v) in self.keys.items()},
            tables=tuple(t if len(t) == 1 else t[rows] for t in self.tables),
        )


def conditioning_in_passes(cond: Conditioning, uncond: Conditioning, guidance: float) -> Conditioning:
    """Guidance as two passes, the prompt and then the negative, with texts of different lengths."""
    halves = cond, uncond
    embeds = padded([half.embeds for half in halves])
    constants = tuple(torch.cat(both) for both in zip(cond.constants, uncond.constants, strict=True))
    return Conditioning(embeds, constants, True, guidance, {}, separate_passes=halves)


def padded(texts: Sequence[Float[Tensor, "_ _ d"]]) -> Float[Tensor, "b longest d"]:
    """Batch texts of different lengths, padded with zeros at the end."""
    longest = max(text.shape[1] for text in texts)
    return torch.cat([F.pad(text, (0, 0, 0, longest - text.shape[1])) for text in texts])


@dataclass(frozen=True, eq=False)
class Encodings:
    """Positional encodings of tokens: tensors (1 or b, n, ...), from which a call takes rows.

    positions: (row, column) of each token in cells of the grid, (1 or b, n, 2); None where the tokens are the
        cells, in order.
    shared: encodings (1, ...) of non-image tokens, which depend only on the grid (Qwen-Image's text).
    """

    grid: Grid
    tables: tuple[Tensor, ...]
    positions: Tensor | None
    shared: tuple[Tensor, ...] = ()

    @property
    def covers_grid(self) -> bool:
        return self.positions is None

    def select_images(self, images: Sequence[int]) -> "Encodings":
        """Select some images of the batch."""
        positions, *tables = (
            t if t is None or len(t) == 1 else t[[*images]] for t in (self.positions, *self.tables)
        )
        return replace(self, tables=tuple(tables), positions=positions)

    def gather(self, rows: Tensor | None, halves: int) -> tuple[Tensor, ...]:
        """Return the tables at `rows` (b, k), all if None, repeated for guidance halves; then shared ones."""
        tables = self.tables
        if rows is not None:
            tables = tuple(gather_tokens(t.expand(len(rows), *t.shape[1:]), rows) for t in tables)
        return *(t if len(t) == 1 else torch.cat([t] * halves) for t in tables), *self.shared


def gather_tokens(x: Shaped[Tensor, "b n *rest"], rows: Int[Tensor, "b k"]) -> Shaped[Tensor, "b k *rest"]:
    """Return x at the given rows of each image."""
    return x[torch.arange(len(rows), device=rows.device)[:, None], rows]


def pack(latents: Float[Tensor, "b c height width"], p: int) -> Float[Tensor, "b n cpp"]:
    """Flatten p x p patches to tokens, in (channel, row, column) order."""
    x = latents.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (b, c, rows, p, columns, p)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Float[Tensor, "b n cpp"], grid: Grid, p: int) -> Float[Tensor, "b c height width"]:
    x = tokens.unflatten(2, (-1, p, p)).unflatten(1, grid)  # (b, rows, columns, c, p, p)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def channels_first(tokens: Tensor, p: int, channels: int) -> Tensor:
    """Reorder patches from (row, column, channel), as SD3, Lumina and Z-Image emit them, to channel first."""
    return tokens.unflatten(-1, (p * p, -1))[..., :channels].transpose(-1, -2).flatten(-2)


def channels_last(tokens: Tensor, p: int) -> Tensor:
    """Reorder patches from channel first to (row, column, channel), as Z-Image takes them."""
    return tokens.unflatten(-1, (-1, p * p)).transpose(-1, -2).flatten(-2)

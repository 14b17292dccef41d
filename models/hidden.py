"""The state passed from block to block of a transformer, and the other inputs of the blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fovea.models.tokens import padded


@dataclass(frozen=True, eq=False)
class Hidden:
    """State between two blocks, or a difference of two states.

    image: image tokens (b', n, d); b' counts the guidance halves.
    text: text tokens (b', text, d). None if the family's text is constant (Lumina), and after the last block
        of SD3, which drops it.
    """

    image: Tensor
    text: Tensor | None

    def __sub__(self, other: "Hidden") -> "Hidden":
        return self._with(other, torch.sub)

    def __add__(self, other: "Hidden") -> "Hidden":
        return self._with(other, torch.add)

    def _with(self, other: "Hidden", of: Callable[[Tensor, Tensor], Tensor]) -> "Hidden":
        text = None if self.text is None or other.text is None else of(self.text, other.text)
        return Hidden(of(self.image, other.image), text)

    def scale(self, factors: Tensor) -> "Hidden":
        """Return the state times one factor per entry of the batch, (b',)."""
        rows = factors[:, None, None]
        text = None if self.text is None else self.text * rows.to(self.text.dtype)
        return Hidden(self.image * rows.to(self.image.dtype), text)

    def index_select(self, rows: Tensor) -> "Hidden":
        """Return the given rows of the batch b'."""
        return Hidden(self.image[rows], None if self.text is None else self.text[rows])

    def chunk(self, i: int, texts: Sequence[int]) -> "Hidden":
        """Return the i-th of `len(texts)` equal parts of the batch, without text padding.

        texts: text length of each part.
        """
        image = self.image.chunk(len(texts))[i]
        return Hidden(image, None if self.text is None else self.text.chunk(len(texts))[i][:, : texts[i]])

    @staticmethod
    def cat(parts: Sequence["Hidden"]) -> "Hidden":
        """Concatenate the parts to one batch, with shorter texts padded by zeros."""
        texts = [part.text for part in parts if part.text is not None]
        return Hidden(torch.cat([part.image for part in parts]), padded(texts) if texts else None)

    def index_copy(self, rows: Tensor, other: "Hidden") -> "Hidden":
        """Return this state with `other` written to the given rows."""
        text = None if self.text is None or other.text is None else self.text.index_copy(0, rows, other.text)
        return Hidden(self.image.index_copy(0, rows, other.image), text)


@dataclass(frozen=True, eq=False)
class Context:
    """Inputs of all blocks of one evaluation besides the state; the first dimension is b'.

    vector: modulation.
    tables: positional encodings, (1 or b', ...) each.
    text, mask, keys: the prompt (Lumina).
    modulations: modulation shared by all blocks of a kind (FLUX.2).
    """

    vector: Tensor
    tables: tuple[Tensor, ...]
    text: Tensor | None = None
    mask: Tensor | None = None
    keys: dict[int, tuple[Tensor, Tensor]] | None = None
    modulations: tuple[Tensor, ...] = ()

    def index_select(self, rows: Tensor) -> "Context":
        tables = tuple(t if len(t) == 1 else t[rows] for t in self.tables)
        keys = self.keys and {layer: (k[rows], v[rows]) for layer, (k, v) in self.keys.items()}
        text, mask = (t if t is None else t[rows] for t in (self.text, self.mask))
        return Context(self.vector[rows], tables, text, mask, keys, tuple(t[rows] for t in self.modulations))

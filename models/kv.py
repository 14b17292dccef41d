"""Keys and values kept across calls, in an object owned by the caller."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor


class KV:
    """Keys and values of all tokens of one trajectory, by guidance pass and attention layer; never copied.

    Guidance that depends on all tokens keeps their velocities here, too (Lumina-Image 2.0).

    size: (batch including guidance halves, image tokens), set by the dense call that filled it.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.layers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for pair in self.layers.values() for t in pair)

    def update(
        self, pass_index: int, layer: int, k: Tensor, v: Tensor, slots: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values (b, s, heads, d), or overwrite some rows, and return all of them.

        slots: rows to overwrite in the cache flattened to (b * s, width).
        """
        if slots is None:
            # stored without a copy, unless they are views of a larger projection
            self.layers[pass_index, layer] = kept = k.contiguous(), v.contiguous()
            return kept
        kept = self.layers[pass_index, layer]
        for old, new in zip(kept, (k, v), strict=True):
            width = old.shape[2] * old.shape[3]
            old.view(-1, width).index_copy_(0, slots, new.reshape(-1, width))
        return kept


@dataclass
class Call:
    """What attention processors need to know about the velocity call in progress; empty between calls.

    pass_index: index of the guidance pass.
    joint, image: rows that a sparse call writes in the caches of attention over image and text, and over the
        image alone; None in a dense call.
    text: keys and values of the prompt by layer (Lumina).
    """

    kv: KV | None = None
    pass_index: int = 0
    joint: Tensor | None = None
    image: Tensor | None = None
    text: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @contextmanager
    def scope(self, **state) -> Iterator[None]:
        try:
            vars(self).update(state)
            yield
        finally:
            vars(self).update(vars(Call()))


class Claim(NamedTuple):
    """Use of a transformer by an `adapt`, held by the transformer.

    of: the transformer, since a copy of it has a copy of the claim.
    """

    call: Call
    of: ref[Any]


def flat_rows(rows: Tensor, n: int) -> Tensor:
    """Map rows (b, k), of n tokens per image, to rows of the flattened batch: (b * k,)."""
    return (rows + n * torch.arange(len(rows), device=rows.device)[:, None]).flatten()

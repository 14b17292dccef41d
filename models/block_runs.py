"""Records of what an evaluation of the transformer ran, from which FLOPs, traces and no-ops are derived."""

from typing import Literal, NamedTuple

Part = Literal["attention", "mlp"]
Modules = Literal["attention", "all"]


class BlockRun(NamedTuple):
    """A range of blocks that ran on some images of a batch.

    k: tokens evaluated per image.
    n: tokens attended over per image.
    first, last: the blocks first to last - 1.
    images: indices in the batch.
    outer: whether embedding and readout ran too.
    cached: parts of every block that a cache answered.
    indicator: whether the modulated input of the first block was computed as a cache's indicator.
    kept_text: whether the text tokens did not run and their kept keys and values were attended to.
    prompted_only: whether the prompted half of guidance ran alone.
    """

    k: int
    n: int
    first: int
    last: int
    images: tuple[int, ...]
    outer: bool = False
    cached: tuple[Part, ...] = ()
    indicator: bool = False
    kept_text: bool = False
    prompted_only: bool = False

    @property
    def blocks(self) -> int:
        """Number of blocks executed; 0 if attention and MLP are both cached."""
        return 0 if len(self.cached) == 2 else self.last - self.first

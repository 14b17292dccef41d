"""What an evaluation of the transformer consisted of: FLOPs, traces and no-ops are counted from it."""

from typing import Literal, NamedTuple

Part = Literal["attention", "mlp"]
Modules = Literal["attention", "all"]


class BlockRun(NamedTuple):
    """A stretch of blocks that ran on some images of a batch.

    k, n: tokens that ran, and that were attended over, of each image. first, last: blocks first to last - 1.
    images: which of the batch. ends: embedding and readout are counted here. cached: parts of every block
    that a cache answered. looked: the first block's input was normalised for a look at it alone.
    """

    k: int
    n: int
    first: int
    last: int
    images: tuple[int, ...]
    ends: bool = False
    cached: tuple[Part, ...] = ()
    looked: bool = False

    @property
    def blocks(self) -> int:
        """Blocks executed; one whose attention and MLP are both cached is not."""
        return 0 if len(self.cached) == 2 else self.last - self.first

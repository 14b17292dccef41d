"""What one family of models adds to `Model`: its own modules in their own order, and what they cost."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fovea.models.hidden import Context, Hidden
from fovea.models.opened import Modules
from fovea.models.text_limits import Reader
from fovea.models.tokens import Conditioning, Grid, Places

Entered = tuple[Hidden, Context]


def weights(*modules: nn.Module | None) -> int:
    """Multiply-adds per token of all linear maps that run in `modules`, those of LoRA included."""
    inner = [m for module in modules if module is not None for m in running(module)]
    linear = sum(m.in_features * m.out_features for m in inner if isinstance(m, nn.Linear))
    return linear + sum(m.weight.numel() for m in inner if isinstance(m, nn.Conv2d))


def running(module: nn.Module) -> Iterator[nn.Module]:
    """The module and those within it that run: of a layer of peft its own one, and its active adapters."""
    yield module
    own: Any = module
    adapted = hasattr(module, "base_layer") and hasattr(module, "active_adapters")
    idle = adapted and (own.disable_adapters or own.merged)
    for name, child in module.named_children():
        if not adapted or name == "base_layer":
            yield from running(child)
        elif not idle and isinstance(child, nn.ModuleDict):
            for adapter in set(own.active_adapters) & set(child):
                yield from running(child[adapter])


class Family(ABC):
    """The transformer of a pipeline, taken apart: embedding, blocks, readout.

    parts: components that the pipeline must have. processor: class of the attention processors. limits: names
    of `encode`'s own settings. max_shift: default of the pipeline's schedule. patch: side of a token in
    latent pixels. channels: of the latent. blocks: in order. blank_shape: see `blank`.
    """

    family: ClassVar[Literal["sd3", "lumina", "flux"]]
    parts: ClassVar[tuple[str, ...]]
    processor: ClassVar[Any]
    limits: ClassVar[tuple[str, ...]] = ("max_sequence_length",)
    max_shift: ClassVar[float] = 1.15
    blank_shape: ClassVar[tuple[int, ...]] = (1, 1, 1)
    patch = 2
    channels: int
    dit: Any
    dtype: torch.dtype
    device: torch.device
    blocks: list[Any]

    @abstractmethod
    def encode(
        self, prompts: Sequence[str], negative=None, guidance: float | None = None, **limits
    ) -> Conditioning:
        """Prompts, their guidance halves included. negative: one string for all or one each, "" if None.
        guidance: the pipeline's default if None; at most 1 is no guidance, as in the pipeline.
        limits: `max_sequence_length` (Lumina's is fixed and it is ignored, as in its pipeline),
        `true_cfg_scale` (FLUX)."""

    @abstractmethod
    def readers(self, max_sequence_length: int | None = None) -> list[Reader]:
        """The text encoders' tokenizers, and how much they read of a prompt."""

    @abstractmethod
    def places(self, grid: Grid, positions: Float[Tensor, "b n 2"] | None = None) -> Places:
        """Positional encodings, once per trajectory. positions: (row, column) in units of the cells of
        `grid`, per image or shared, possibly fractional; None is every cell of the grid."""

    @abstractmethod
    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> Entered:
        """Tokens x (b', k, c) as the state before the first block, and what the blocks are given besides."""

    def blank(self, *args, **kwargs) -> Tensor:
        """What a module that need not run gives: nothing that anything depends on."""
        return torch.zeros(self.blank_shape, dtype=self.dtype, device=self.device)

    @abstractmethod
    def stack(self) -> list[Any]:
        """The blocks in order."""

    @abstractmethod
    def step(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        """One block."""

    @abstractmethod
    def leave(self, hidden: Hidden, context: Context) -> Tensor:
        """Velocity (b', k, c) from the state after the last block, without guidance."""

    @abstractmethod
    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        """The image tokens (b', n, d) as the first block's attention sees them."""

    @abstractmethod
    def sites(self, modules: Modules) -> tuple[list[nn.Module], list[nn.Module]]:
        """The modules whose outputs a cache may answer, and those that need not run then. modules: the
        attentions, or all of attentions and MLPs."""

    @abstractmethod
    def stock(self, x: Tensor, sigma: Tensor, cond: Conditioning, places: Places) -> Tensor:
        """The same for all tokens of a grid, by the transformer's own forward."""

    @abstractmethod
    def joint(self, rows: Tensor, n: int, text: int) -> Tensor:
        """Rows (b, k + text) of one image's joint memory that its image rows (b, k) and its text occupy."""

    @abstractmethod
    def outer_macs(self, k: int, text: int) -> int:
        """Multiply-adds before and after the blocks, of one image on k tokens."""

    @abstractmethod
    def block_macs(self, block: Any, k: int, n: int, text: int) -> dict[str, int]:
        """Multiply-adds of one block of one image on k of n tokens: of "attention", of "mlp" (what runs
        besides when the attentions alone are held), and of the "modulation", which no cache answers."""

"""The transformer side of a model: a velocity field on tokens, as embedding, blocks and readout."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fovea.models.autoencoder import vae_scale_factor
from fovea.models.block_runs import BlockRun, Modules
from fovea.models.forward import ensure_on_device, forward_wrappers, guidance_context, needing_tokens
from fovea.models.hidden import Context, Hidden
from fovea.models.kv import KV, Call, flat_rows
from fovea.models.tokens import Conditioning, Encodings, Grid, gather_tokens

BlockInputs = tuple[Hidden, Context]


class Transformer(ABC):
    """The modules of the user's transformer, called in order.

    No state of a trajectory is kept here: keys and values live in the caller's `KV`, positional encodings in
    `Encodings`, prompts in `Conditioning`.

    patch: side of a token in latent pixels.
    channels: number of latent channels.
    token_size: side of a token in pixels.
    latent_dtype: dtype of tokens between evaluations.
    max_side: maximum side of the grid in tokens, if any.
    blocks: the transformer blocks in order.
    placeholder_shape: see `placeholder`.
    text_first: whether the text precedes the image in joint attention.
    """

    placeholder_shape: ClassVar[tuple[int, ...]] = (1, 1, 1)
    text_first: ClassVar[bool] = False
    max_side: int | None = None

    def __init__(self, pipe: Any, call: Call, dense: Literal["tokens", "stock"] = "tokens") -> None:
        self.dit, self.call, self.dense = pipe.transformer, call, dense
        self.dtype, self.device = self.dit.dtype, pipe._execution_device
        self.latent_dtype = self.dtype
        self.patch, self.channels = self.patch_and_channels(self.dit)
        # not pipe.vae_scale_factor, which LuminaPipeline fixes at 8
        self.token_size = vae_scale_factor(pipe.vae.config) * self.patch
        self.blocks = self.list_blocks()
        # what running the modules would bypass; with dense="tokens" `adapt` has rejected it
        self.bypassed = next((what for what, _ in forward_wrappers(self.dit)), None)

    @cached_property
    def _needing_tokens(self) -> str | None:
        return needing_tokens(self.dit)

    @torch.no_grad()
    def velocity(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        cond: Conditioning,
        encodings: Encodings,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
        keep_text: bool = False,
    ) -> Float[Tensor, "b k c"]:
        """Return dx/dsigma, guidance included, at the tokens `rows` of each image, or at all of them if None.

        See `evaluate` for the arguments and errors.
        """
        v = self.evaluate(x, sigma, cond, encodings, kv, rows, keep_text)
        return self.guide(v, cond, encodings, kv, rows)

    @torch.no_grad()
    def evaluate(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        cond: Conditioning,
        encodings: Encodings,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
        keep_text: bool = False,
    ) -> Float[Tensor, "_ k c"]:
        """Return dx/dsigma of both guidance halves, in the family's order, or of the prompt alone without
        guidance.

        x: all tokens; computed in the model's dtype.
        sigma: 0-d tensor on the model's device.
        kv: filled by a dense call; a sparse call overwrites it at `rows` and attends over all of it.
        keep_text: a sparse call does not run the text tokens; the image attends to their keys and values as
            the last call that ran them left them in `kv`. Where the text never runs (Lumina), no difference.

        Never synchronises with the device. ValueError for rows without the kv of a dense call of the same
        size, and for keep_text without rows; RuntimeError outside of the block of `adapt`.
        """
        size = (cond.halves * len(x), x.shape[1])
        if rows is not None and (kv is None or kv.size != size):
            raise ValueError(f"rows need the kv of a dense call of size {size}, not {kv and kv.size}")
        if keep_text and rows is None:
            raise ValueError("keep_text needs rows: a call on all tokens runs the text")
        applicable = encodings.covers_grid and all(half.forward_kwargs for half in cond.passes)
        if kv is None and self.dense == "stock" and applicable:
            velocities = [
                self.run_forward(x, sigma, half, encodings, pass_index)
                for pass_index, half in enumerate(cond.passes)
            ]
        else:
            velocities = [
                self.run_modules(x, sigma, half, encodings, pass_index, kv, rows, keep_text)
                for pass_index, half in enumerate(cond.passes)
            ]
        if kv is not None:
            kv.size = size
        return velocities[0] if len(velocities) == 1 else torch.cat(velocities)

    def check_adapted(self) -> None:
        """Raise RuntimeError outside of the block of `adapt`: the pipeline's own processors keep no keys."""
        held = vars(self.dit).get("_adapted")
        if held is None or held.call is not self.call:
            raise RuntimeError("this flow is used after its adapt has ended: stay within `with adapt(pipe)`")

    def run_modules(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        encodings: Encodings,
        pass_index: int,
        kv: KV | None,
        rows: Tensor | None,
        keep_text: bool,
    ) -> Tensor:
        """Evaluate one of `cond.passes`, by running the transformer's modules; unguided."""
        slots = self.slots(rows, (cond.halves * len(x), x.shape[1]), cond.text, keep_text)
        with self.call.scope(kv=kv, pass_index=pass_index, text=cond.keys, **slots):
            hidden, context = self.prepare(x, sigma, cond, encodings, rows, keep_text)
            for block in self.blocks:
                hidden = self.run_block(block, hidden, context)
        return self.readout(hidden, context)

    def run_forward(
        self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings, pass_index: int
    ) -> Tensor:
        """As `run_modules`, through the transformer's own forward, whose caches are told which pass it is."""
        self.check_adapted()
        ensure_on_device(self.dit)
        with guidance_context(self.dit, ("cond", "uncond")[pass_index]):
            return self.stock_forward(x.to(self.dtype).repeat(cond.halves, 1, 1), sigma, cond, encodings)

    @torch.no_grad()
    def prepare(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        encodings: Encodings,
        rows: Tensor | None = None,
        keep_text: bool = False,
    ) -> BlockInputs:
        """Return the state before the first block for one of `cond.passes`.

        rows: tokens of each image; None for all.
        keep_text: see `velocity`; the state has no text tokens.

        Guidance halves that form one batch are both included.
        """
        self.check_adapted()
        if self.bypassed:
            raise ValueError(
                f"{self.bypassed}: only calls on all tokens of a grid that keep no kv run through it, and "
                "this method needs others"
            )
        ensure_on_device(self.dit)
        x = (x if rows is None else gather_tokens(x, rows)).to(self.dtype).repeat(cond.halves, 1, 1)
        cond = self.without_text(cond) if keep_text else cond
        return self.embed(x, sigma, cond, encodings.gather(rows, cond.halves))

    def without_text(self, cond: Conditioning) -> Conditioning:
        """Return the conditioning with no text tokens to run; the mask of their keys stays.

        ValueError for a transformer whose layers cannot be given no tokens.
        """
        if self._needing_tokens:
            raise ValueError(
                f"keep_text: the transformer is quantised, and its layers ({self._needing_tokens}) fail "
                "where no text is given; load it unquantised, or with its weights alone in fewer bits"
            )
        return replace(cond, embeds=cond.embeds[:, :0])

    def slots(
        self, rows: Tensor | None, size: tuple[int, int], text: int, keep_text: bool = False
    ) -> dict[str, Tensor | None]:
        """Return the rows that a sparse call writes in the caches of the whole batch; see `Call`."""
        if rows is None:
            return {"image": None, "joint": None}
        b, n = size
        rows = rows.repeat(b // len(rows), 1)
        return {
            "image": flat_rows(rows, n),
            "joint": flat_rows(self.joint_rows(rows, n, text, keep_text), n + text),
        }

    def joint_rows(self, rows: Tensor, n: int, text: int, keep_text: bool = False) -> Tensor:
        """Return the rows of one image's joint cache that a call on the image rows (b, k) writes.

        These are (b, k + text), in the order of the family's attention, or (b, k) with keep_text.
        """
        image = text + rows if self.text_first else rows
        if keep_text:
            return image
        start = 0 if self.text_first else n
        text_rows = torch.arange(start, start + text, device=rows.device).expand(len(rows), -1)
        return torch.cat([text_rows, image] if self.text_first else [image, text_rows], 1)

    def modulation(self, embedder: Any, t: Tensor, cond: Conditioning) -> Tensor:
        """Return the vector that modulates every block: time embedding plus `cond.constants`."""
        vector = embedder.timestep_embedder(embedder.time_proj(t).to(self.dtype))
        for constant in cond.constants:
            vector = vector + constant
        return vector

    def guide(
        self,
        v: Float[Tensor, "_ k c"],
        cond: Conditioning,
        encodings: Encodings,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k c"]:
        """Classifier-free guidance (arXiv:2207.12598).

        v: both halves in the family's order.
        encodings, kv, rows: see `velocity`; for guidance that depends on the other tokens (Lumina-Image 2.0).
        """
        if not cond.guided:
            return v
        v_cond, v_uncond = cond.split(v)
        return v_uncond + cond.guidance * (v_cond - v_uncond)

    def flops(self, run: BlockRun, *, text: int, guided: bool) -> int:
        """FLOPs of linear maps and attention for one image, 2 per multiply-add; agrees with torch's counter.

        text: number of text tokens.
        """
        macs = self.outer_macs(run.k, run.n, text, run.kept_text) if run.outer else 0
        macs += self.indicator_macs() if run.indicator else 0
        for block in self.blocks[run.first : run.last]:
            parts = self.block_macs(block, run.k, run.n, text, run.kept_text)
            macs += sum(count for part, count in parts.items() if part not in run.cached)
        return 2 * macs * (2 if guided else 1)

    def indicator_macs(self) -> int:
        """Multiply-adds of `modulated` for one image."""
        return macs_per_token(self.blocks[0].norm1)

    def placeholder(self, *args, **kwargs) -> Tensor:
        """Stand in for the output of a module that need not run; nothing depends on the values."""
        return torch.zeros(self.placeholder_shape, dtype=self.dtype, device=self.device)

    @staticmethod
    def unsupported(dit: Any) -> Iterator[str]:
        """Yield descriptions of unsupported features that a transformer of this class may have."""
        yield from ()

    @staticmethod
    def patch_and_channels(dit: Any) -> tuple[int, int]:
        """Return the side of a token in latent pixels and the number of latent channels."""
        return dit.config.patch_size, dit.config.in_channels

    @abstractmethod
    def condition(self, forward_kwargs: dict[str, Any], guided: bool, guidance: float) -> Conditioning:
        """Build the conditioning from prompts given as keyword arguments of the transformer's own forward."""

    @abstractmethod
    def encodings(self, grid: Grid, positions: Float[Tensor, "b n 2"] | None = None) -> Encodings:
        """Return positional encodings, computed once per trajectory.

        positions: (row, column) in units of the cells of `grid`, per image or shared, possibly fractional;
            None for every cell of the grid.
        """

    @abstractmethod
    def list_blocks(self) -> list[Any]:
        """Return the blocks in order."""

    @abstractmethod
    def embed(self, x: Tensor, sigma: Tensor, cond: Conditioning, tables: tuple[Tensor, ...]) -> BlockInputs:
        """Return the state before the first block for tokens x (b', k, c), and the blocks' other inputs."""

    @abstractmethod
    def run_block(self, block: Any, hidden: Hidden, context: Context) -> Hidden:
        """Run one block."""

    @abstractmethod
    def readout(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the unguided velocity (b', k, c) from the state after the last block."""

    def compared(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the part (b', s, d) of a difference of states that caches compare with their threshold."""
        return hidden.image

    @abstractmethod
    def modulated(self, hidden: Hidden, context: Context) -> Tensor:
        """Return the image tokens (b', n, d) as the first block's attention sees them."""

    @abstractmethod
    def sites(self, modules: Modules) -> tuple[list[nn.Module], list[nn.Module]]:
        """Return the modules whose outputs a cache may replace, and those that then need not run.

        modules: the attentions, or all attentions and MLPs.
        """

    @abstractmethod
    def stock_forward(self, x: Tensor, sigma: Tensor, cond: Conditioning, encodings: Encodings) -> Tensor:
        """Return the unguided velocity of all tokens of a grid by the transformer's own forward."""

    @abstractmethod
    def outer_macs(self, k: int, n: int, text: int, kept_text: bool = False) -> int:
        """Multiply-adds outside the blocks, for one image with k of n tokens evaluated."""

    @abstractmethod
    def block_macs(self, block: Any, k: int, n: int, text: int, kept_text: bool = False) -> dict[str, int]:
        """Multiply-adds of one block, for one image with k of n tokens evaluated, by part.

        kept_text: the text tokens are attended to but do not run.

        Parts are "attention", "mlp" (what still runs if only attentions are cached), and "modulation", which
        is never cached.
        """


def macs_per_token(*modules: nn.Module | None) -> int:
    """Multiply-adds per token of all active linear maps in `modules`, including LoRA."""
    inner = [m for module in modules if module is not None for m in active_modules(module)]
    linear = sum(m.in_features * m.out_features for m in inner if isinstance(m, nn.Linear))
    return linear + sum(m.weight.numel() for m in inner if isinstance(m, nn.Conv2d))


def active_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the module and the submodules that run; of a peft layer, its base layer and active adapters."""
    yield module
    own: Any = module
    adapted = hasattr(module, "base_layer") and hasattr(module, "active_adapters")
    idle = adapted and (own.disable_adapters or own.merged)
    for name, child in module.named_children():
        if not adapted or name == "base_layer":
            yield from active_modules(child)
        elif not idle and isinstance(child, nn.ModuleDict):
            for adapter in set(own.active_adapters) & set(child):
                yield from active_modules(child[adapter])

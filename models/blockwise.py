"""Blockwise evaluation: run the transformer block by block. Feature caches are built on it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fovea.models.block_runs import BlockRun, Modules, Part
from fovea.models.forward import compiled
from fovea.models.hidden import Context, Hidden
from fovea.models.tokens import Conditioning, Encodings, padded
from fovea.models.transformer import Transformer

Record = Callable[[int, tuple[Tensor, ...]], None]
Recall = Callable[[int], Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation on all tokens of a batch of images, to be run block by block.

        e = flow.prepare(x, sigma)
        h = e.run(e.hidden, 0, 1)      # the first block
        h = e.run(h, 1)                # the others
        v = e.velocity(h)              # (b, n, c), guided; equals flow.velocity(x, sigma) bit for bit

    b: number of images.
    block_runs: list to which the blocks run are appended.
    hidden: state before the first block.
    contexts: one per entry of `cond.passes`. With several passes, a state concatenates them along the batch,
        with shorter texts padded.
    """

    transformer: Transformer
    cond: Conditioning
    encodings: Encodings
    b: int
    block_runs: list[BlockRun]
    hidden: Hidden
    contexts: tuple[Context, ...]

    @property
    def blocks(self) -> int:
        return len(self.transformer.blocks)

    def modulated(self) -> Float[Tensor, "b n d"]:
        """Return the input of the first block's attention at the image tokens (TeaCache's indicator)."""
        self.block_runs.append(BlockRun(0, 0, 0, 0, tuple(range(self.b)), indicator=True))
        return concatenate([self.transformer.modulated(*part) for part in self.split_passes(self.hidden)])

    def compared(self, difference: Hidden) -> Float[Tensor, "_ s d"]:
        """Return a difference of two states at the tokens that the family's caches compare.

        With several passes, shorter streams are padded with zeros.
        """
        parts = [self.transformer.compared(*part) for part in self.split_passes(difference)]
        return parts[0] if len(parts) == 1 else padded(parts)

    def relative_change(self, now: Tensor, before: Tensor) -> list[float]:
        """Return the relative L1 distance of two tensors (b', n, d) per image, over both guidance halves.

        Synchronises with the device once.
        """
        return (self.magnitude(now - before) / self.magnitude(before)).tolist()

    def magnitude(self, t: Float[Tensor, "_ s d"]) -> Float[Tensor, " b"]:
        """Return the mean absolute value per image, over both guidance halves."""
        return t.abs().unflatten(0, (-1, self.b)).mean((0, 2, 3))

    @torch.no_grad()
    def run(
        self,
        hidden: Hidden,
        first: int = 0,
        last: int | None = None,
        *,
        images: Sequence[int] | None = None,
        modules: Modules = "all",
        record: Record | None = None,
        recall: Recall | None = None,
    ) -> Hidden:
        """Run blocks first to last - 1 and return the state, for some `images` of the batch or all.

        modules: modules that `record` and `recall` apply to; with "attention" the MLPs always run.
        record: called as record(site, outputs) with the outputs of each such module.
        recall: recall(site) returns outputs in place of running the module.

        Sites are numbered from the first block of the first pass.
        """
        last = self.blocks if last is None else last
        chosen = tuple(range(self.b)) if images is None else tuple(images)
        cached: tuple[Part, ...] = ()
        if recall is not None:
            cached = ("attention",) if modules == "attention" else ("attention", "mlp")
        n = hidden.image.shape[1]
        if first < last:
            self.block_runs.append(BlockRun(n, n, first, last, chosen, cached=cached))
        transformer, found = self.transformer, []
        for pass_index, (state, context) in enumerate(self.split_passes(hidden)):
            if images is not None:
                rows = self.rows(chosen, state)
                state, context = state.index_select(rows), context.index_select(rows)
            with (
                transformer.call.scope(text=context.keys or {}),
                intercept_modules(transformer, modules, record, recall, pass_index),
            ):
                for block in transformer.blocks[first:last]:
                    state = transformer.run_block(block, state, context)
            found.append(state)
        return found[0] if len(found) == 1 else Hidden.cat(found)

    def split_passes(self, hidden: Hidden) -> list[tuple[Hidden, Context]]:
        """Return the state and context of each pass."""
        if len(self.contexts) == 1:
            return [(hidden, self.contexts[0])]
        texts = [half.text for half in self.cond.passes]
        return [(hidden.chunk(i, texts), context) for i, context in enumerate(self.contexts)]

    def rows(self, images: Sequence[int], hidden: Hidden | None = None) -> Tensor:
        """Return the batch rows of the images, one per guidance half, in b' or in the state of one pass."""
        image = (self.hidden if hidden is None else hidden).image
        halves = len(image) // self.b
        return torch.tensor(
            [half * self.b + i for half in range(halves) for i in images], device=image.device
        )

    def merge(self, old: Hidden | None, new: Hidden, recompute: Sequence[bool]) -> Hidden:
        """Return `new` for the images that are due and `old` for the others."""
        if old is None or all(recompute):
            return new
        if not any(recompute):
            return old
        rows = self.rows([i for i, now in enumerate(recompute) if now])
        return old.index_copy(rows, new.index_select(rows))

    def run_due(
        self,
        hidden: Hidden,
        stand_in: Hidden,
        recompute: Sequence[bool],
        first: int = 0,
        last: int | None = None,
    ) -> Hidden:
        """Return the state after a range of blocks for the images that are due, `stand_in` for the others."""
        if all(recompute):
            return self.run(hidden, first, last)
        if not any(recompute):
            return stand_in
        images = [i for i, now in enumerate(recompute) if now]
        return stand_in.index_copy(self.rows(images), self.run(hidden, first, last, images=images))

    def run_or_reuse(
        self,
        hidden: Hidden,
        residual: Hidden | None,
        recompute: Sequence[bool],
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Hidden, Hidden]:
        """Return the state after a range of blocks and their residual.

        The blocks run for the images that are due; the others get `hidden + residual`. residual may be None
        if all are due.
        """
        if residual is None or all(recompute):
            after = self.run(hidden, first, last)
            return after, after - hidden
        after = self.run_due(hidden, hidden + residual, recompute, first, last)
        return after, self.merge(residual, after - hidden, recompute) if any(recompute) else residual

    @torch.no_grad()
    def readout(self, hidden: Hidden) -> Float[Tensor, "_ n c"]:
        """Normalise and project the state after the last block, for both guidance halves."""
        return concatenate([self.transformer.readout(*part) for part in self.split_passes(hidden)])

    @torch.no_grad()
    def velocity(self, hidden: Hidden) -> Float[Tensor, "b n c"]:
        """Return the guided velocity from the state after the last block."""
        return self.transformer.guide(self.readout(hidden), self.cond, self.encodings)


def concatenate(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@contextmanager
def intercept_modules(
    transformer: Transformer, modules: Modules, record: Record | None, recall: Recall | None, pass_index: int
) -> Iterator[None]:
    """Route the outputs of attention and MLP modules to `record` or from `recall` while the block lasts.

    pass_index: index of the guidance pass; each pass has its own sites.

    Compiled blocks run eagerly meanwhile: the replaced forwards change at each step and would trigger
    recompilation.
    """
    if record is None and recall is None:
        yield
        return
    originals: dict[nn.Module, Callable | None] = {}

    def route(module: nn.Module, forward: Callable) -> None:
        originals[module] = vars(module).get("forward")
        module.forward = forward

    try:
        replaced, idle = transformer.sites(modules)
        for site, module in enumerate(replaced, pass_index * len(replaced)):
            route(
                module, recording(module.forward, site, record) if recall is None else recalling(site, recall)
            )
        for module in idle if recall is not None else ():
            route(module, transformer.placeholder)
        with uncompiled(transformer.blocks):
            yield
    finally:
        for module, forward in originals.items():
            del module.forward
            if forward is not None:
                module.forward = forward


@contextmanager
def uncompiled(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Run compiled modules eagerly while the block lasts, and no others: torch's own switch is one for the
    process, and two threads, each with a pipeline of its own, would leave it on."""
    calls = {module: module._compiled_call_impl for module in modules if compiled([module])}
    for module in calls:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in calls.items():
            module._compiled_call_impl = call


def recording(forward: Callable, site: int, record: Record | None) -> Callable:
    def run(*args, **kwargs):
        out = forward(*args, **kwargs)
        if record is not None:
            record(site, out if isinstance(out, tuple) else (out,))
        return out

    return run


def recalling(site: int, recall: Recall) -> Callable:
    def answer(*args, **kwargs):
        out = recall(site)
        return out if len(out) > 1 else out[0]

    return answer

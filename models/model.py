"""What the three adapters share in the transformer: the velocity call, its guidance and its cost."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fovea.models.around import Around
from fovea.models.family import Entered, weights
from fovea.models.flow import Flow
from fovea.models.kv import KV, Call, flat
from fovea.models.settings import known, negatives, scale, texts, whole
from fovea.models.supported import around_forward, resident, restart
from fovea.models.tokens import Conditioning, Places, take
from fovea.models.work import Work


class Model(Around):
    """A diffusion transformer as a velocity field on tokens; made by `adapt`.

    It calls the modules of the pipeline that the user loaded. Nothing of a trajectory is kept here: keys and
    values live in the `KV` that the caller passes, positional encodings in `Places`, prompts in
    `Conditioning`.
    """

    def __init__(self, pipe: Any, call: Call, dense: Literal["tokens", "stock"] = "tokens") -> None:
        super().__init__(pipe)
        self.call, self.dense = call, dense
        self.blocks = self.stack()
        # of what sits around the forward, with dense="tokens" there is nothing
        self.passed_by = next((what for what, _ in around_forward(self.dit)), None)

    def new_kv(self) -> KV:
        """An empty memory for one trajectory."""
        return KV()

    @torch.no_grad()
    def velocity(
        self,
        x: Float[Tensor, "b n c"],
        sigma: Float[Tensor, ""],
        cond: Conditioning,
        places: Places,
        kv: KV | None = None,
        rows: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k c"]:
        """dx/dsigma, guidance included, at the tokens `rows` of each image; at all of them if None.

        x: all tokens; computed in the model's dtype. sigma: 0-d tensor on the model's device. kv: filled by a
        dense call, overwritten at `rows` by a sparse one, which attends over all of it. The call never waits
        for the device. ValueError for rows without the kv of a dense call of the same size.
        """
        halves = 2 if cond.guided else 1
        size = (halves * len(x), x.shape[1])
        if rows is not None and (kv is None or kv.size != size):
            raise ValueError(f"rows need the kv of a dense call of size {size}, not {kv and kv.size}")
        if kv is None and self.dense == "stock" and places.whole:
            resident(self.dit)
            x = x.to(self.dtype).repeat(halves, 1, 1)
            return self.guide(self.stock(x, sigma, cond, places), cond)
        hidden, context = self.enter(x, sigma, cond, places, rows)
        with self.call.during(kv=kv, text=cond.keys, **self.slots(rows, size, cond.text)):
            for block in self.blocks:
                hidden = self.step(block, hidden, context)
        if kv is not None:
            kv.size = size
        return self.guide(self.leave(hidden, context), cond)

    @torch.no_grad()
    def enter(
        self, x: Tensor, sigma: Tensor, cond: Conditioning, places: Places, rows: Tensor | None = None
    ) -> Entered:
        """The state before the first block, of the tokens `rows` of each image, for both halves of
        guidance."""
        if self.passed_by:
            raise ValueError(
                f"{self.passed_by}: only calls on all tokens of a grid that keep no kv run through it, and "
                "this method needs others"
            )
        resident(self.dit)
        halves = 2 if cond.guided else 1
        x = (x if rows is None else take(x, rows)).to(self.dtype).repeat(halves, 1, 1)
        return self.embed(x, sigma, cond, places.take(rows, halves))

    def slots(self, rows: Tensor | None, size: tuple[int, int], text: int) -> dict[str, Tensor | None]:
        """Where a sparse call writes in the memories of the whole batch; see `Call`."""
        if rows is None:
            return {"image": None, "joint": None}
        b, n = size
        rows = rows.repeat(b // len(rows), 1)
        return {"image": flat(rows, n), "joint": flat(self.joint(rows, n, text), n + text)}

    def modulation(self, embedder: Any, t: Tensor, cond: Conditioning) -> Tensor:
        """The vector that modulates every block: time embedding plus what is constant over the trajectory."""
        vector = embedder.timestep_embedder(embedder.time_proj(t).to(self.dtype))
        for constant in cond.constants:
            vector = vector + constant
        return vector

    def guide(self, v: Tensor, cond: Conditioning) -> Tensor:
        """Classifier-free guidance (arXiv:2207.12598) of the halves (without prompt, with prompt)."""
        if not cond.guided:
            return v
        without, given = v.chunk(2)
        return without + cond.guidance * (given - without)

    def flops(self, work: Work, *, text: int, guided: bool) -> int:
        """FLOPs for one image, 2 per multiply-add, in linear maps and attention. text: text tokens. Agrees
        with torch's flop counter."""
        macs = self.outer_macs(work.k, text) if work.ends else 0
        macs += weights(self.blocks[0].norm1) if work.looked else 0
        for block in self.blocks[work.first : work.last]:
            parts = self.block_macs(block, work.k, work.n, text)
            macs += sum(count for part, count in parts.items() if part not in work.held)
        return 2 * macs * (2 if guided else 1)

    def flow(
        self,
        prompts: Sequence[str],
        *,
        generators: Sequence[torch.Generator],
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str | Sequence[str] | None = None,
        **limits,
    ) -> Flow:
        """A batch of images to be made, one generator each; None is the pipeline's own default.

        negative: one for all or one each. limits: those of `encode`. ValueError or TypeError for what is none
        of an image's settings.
        """
        prompts, generators = texts("prompts", prompts), [*generators]
        if len(prompts) != len(generators):
            raise ValueError(f"{len(prompts)} prompts need as many generators, not {len(generators)}")
        known(limits, ("height", "width", "steps", "guidance", "negative", *self.limits))
        scale("guidance", guidance)
        scale("true_cfg_scale", limits.get("true_cfg_scale"))
        if limits.get("max_sequence_length") is not None:
            whole("max_sequence_length", limits["max_sequence_length"], 1, 512)
        steps = whole("steps", self.default("num_inference_steps") if steps is None else steps)
        side = self.pipe.default_sample_size * self.cell // self.patch
        grid = self.grid(side if height is None else height, side if width is None else width)
        cond = self.encode(prompts, negatives(negative, len(prompts)), guidance, **limits)
        restart(self.dit)
        return Flow(self, cond, grid, generators, steps)

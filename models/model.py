"""What the three adapters share: the pipeline's noise, schedule and guidance, and the velocity call."""

import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.family import Entered, Family, weights
from models.flow import Flow
from models.kv import KV, Call, flat
from models.tokens import Conditioning, Grid, Places, pack, take, unpack
from models.work import Work


class Model(Family):
    """A diffusion transformer as a velocity field on tokens; made by `adapt`.

    It calls the modules of the pipeline that the user loaded. Nothing of a trajectory is kept here: keys and
    values live in the `KV` that the caller passes, positional encodings in `Places`, prompts in
    `Conditioning`.
    """

    def __init__(self, pipe: Any, call: Call, dense: Literal["tokens", "stock"] = "tokens") -> None:
        self.pipe, self.call, self.dense = pipe, call, dense
        self.dit = pipe.transformer
        self.dtype, self.device = self.dit.dtype, pipe._execution_device
        self.blocks = self.stack()
        self._decode_flops: dict[Grid, int] = {}
        # not pipe.vae_scale_factor, which LuminaPipeline fixes at 8
        self.cell = 2 ** (len(pipe.vae.config.block_out_channels) - 1) * self.patch

    def grid(self, height: int, width: int) -> Grid:
        """Tokens of an image of height x width pixels; ValueError if it is not a whole number of them."""
        if height % self.cell or width % self.cell or min(height, width) < self.cell:
            raise ValueError(f"height {height} and width {width} must be multiples of {self.cell} pixels")
        return Grid(height // self.cell, width // self.cell)

    def noise(self, generators: Sequence[torch.Generator], grid: Grid) -> Float[Tensor, "b n c"]:
        """Standard normal tokens, drawn as the pipeline draws them; one generator per image."""
        shape = (len(generators), self.channels, *(size * self.patch for size in grid))
        latents = randn_tensor(shape, generator=[*generators], device=self.device, dtype=self.dtype)
        return pack(latents, self.patch)

    def sigmas(self, steps: int, grid: Grid) -> Float[Tensor, " steps_and_1"]:
        """The pipeline's noise levels from 1 to 0, float32. The pipeline's own scheduler stays as it is."""
        scheduler = deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(device=self.device, **self.schedule(steps, grid))
        return scheduler.sigmas

    def schedule(self, steps: int, grid: Grid) -> dict[str, Any]:
        """Arguments of the scheduler's `set_timesteps`."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return {"num_inference_steps": steps}
        base, end = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.max_shift)
        return {"num_inference_steps": steps, "mu": calculate_shift(grid.n, base, end, low, high)}

    def shift(self, grid: Grid) -> float:
        """h of the schedule, in which an even u becomes sigma = h u / (1 + (h - 1) u)."""
        config, mu = self.pipe.scheduler.config, self.schedule(2, grid).get("mu")
        if mu is None:
            return config.shift
        return mu if config.get("time_shift_type") == "linear" else math.exp(mu)

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
            self.resident()
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
        self.resident()
        halves = 2 if cond.guided else 1
        x = (x if rows is None else take(x, rows)).to(self.dtype).repeat(halves, 1, 1)
        return self.embed(x, sigma, cond, places.take(rows, halves))

    def resident(self) -> None:
        """Brings an offloaded transformer to its device. Its hook waits for a forward that is not called."""
        hook = getattr(self.dit, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.dit)

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

    def decode(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1], float32, as the pipeline decodes them."""
        return (self.decoded(x, grid) * 0.5 + 0.5).clamp(0, 1).float()

    @torch.no_grad()
    def decoded(self, x: Float[Tensor, "b n c"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
        """What the autoencoder gives, in [-1, 1] and somewhat beyond."""
        vae = self.pipe.vae
        latents = unpack(x, grid, self.patch).to(vae.dtype) / vae.config.scaling_factor
        return vae.decode(latents + (vae.config.shift_factor or 0), return_dict=False)[0]

    def flops(self, work: Work, *, text: int, guided: bool) -> int:
        """FLOPs for one image, 2 per multiply-add, in linear maps and attention. text: text tokens. Agrees
        with torch's flop counter."""
        macs = self.outer_macs(work.k, text) if work.ends else 0
        macs += weights(self.blocks[0].norm1) if work.looked else 0
        for block in self.blocks[work.first : work.last]:
            parts = self.block_macs(block, work.k, work.n, text)
            macs += sum(count for part, count in parts.items() if part not in work.held)
        return 2 * macs * (2 if guided else 1)

    def decode_flops(self, grid: Grid) -> int:
        """FLOPs of decoding one image of the grid, counted without computing it."""
        if grid not in self._decode_flops:
            with torch.device("meta"):
                vae = type(self.pipe.vae).from_config(self.pipe.vae.config)
                latents = torch.empty(1, self.channels, *(size * self.patch for size in grid))
                with FlopCounterMode(display=False) as counter:
                    vae.decode(latents)
            self._decode_flops[grid] = counter.get_total_flops()
        return self._decode_flops[grid]

    def default(self, name: str) -> Any:
        """The default of an argument of the pipeline's own call."""
        return inspect.signature(type(self.pipe).__call__).parameters[name].default

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
        """A batch of images to be made, one generator each; everything left out is the pipeline's default."""
        if len(prompts) != len(generators):
            raise ValueError(f"{len(prompts)} prompts need as many generators, not {len(generators)}")
        side = self.pipe.default_sample_size * self.cell // self.patch
        grid = self.grid(height or side, width or side)
        cond = self.encode(prompts, negative, guidance, **limits)
        return Flow(self, cond, grid, generators, steps or self.default("num_inference_steps"))

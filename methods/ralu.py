"""RALU: begin at half resolution, refine edges first, then all (Jeong et al. 2025, arXiv:2507.08422)."""

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from fovea.methods import ntdm
from fovea.methods.cache import Cache, uncached
from fovea.methods.caches.taylor_output import TaylorOutput
from fovea.methods.notes import Notes
from fovea.methods.ralu_presets import PRESETS, Preset, matched
from fovea.methods.ras import RAS
from fovea.methods.regions import Selection, scores
from fovea.methods.resolution import coupled, even, halved, halved_grid, split
from fovea.methods.tokens import euler
from fovea.models.tokens import take

Name = Literal["flux_5x", "flux_7x", "sd3_2x", "sd3_3x", "released_4x", "released_7x", "distilled_4nfe"]


@dataclass(frozen=True, config={"extra": "forbid"})
class RALU:
    """Region-adaptive latent upsampling. A stage ends at time e; tokens are split and all are noised anew, so
    that the next stage starts at s < e with tokens as the model knows them from that time (section 4).

    preset: settings by name, of which any below that is given takes the place. stages: steps of each: at half
    resolution, with regions refined, at full resolution; two leave out the middle, one is all at full.
    steps: their sum, shared out as the preset does. ends, c, ratio: see `Preset`. shifts: "auto" matches them
    and c to the stages (`methods.ntdm`), as happens where steps, stages or ends are given alone. target: the
    shift whose schedule they match; None for the model's own, but at least 3: see below.
    selection: what the regions are chosen by. as_released: noise and edges as in the authors' code.
    cache: used within the stages, started anew in each; carry: go on instead, each copy with its parent's
    history, which TaylorOutput can. last: RAS settings for the last stage.

    Matched to a shift near 1 (Lumina's own), the stages' times cannot follow and the solution lies on its
    bounds: c = 1/4, distance 0.14 instead of 0.04. Hence the least target of 3.
    """

    preset: Name = "flux_5x"
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    stages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=3)] | None = (
        None
    )
    ends: Annotated[tuple[float, ...], Field(min_length=1, max_length=3)] | None = None
    shifts: tuple[Annotated[float, Field(gt=0)], ...] | Literal["auto"] | None = None
    c: Annotated[float, Field(gt=0, le=0.25)] | None = None
    target: Annotated[float, Field(gt=0)] | None = None
    ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    selection: Selection = "edges"
    as_released: bool = False
    cache: InstanceOf[Cache] | None = None
    carry: bool = False
    last: InstanceOf[RAS] | None = None

    def __post_init__(self):
        self.outline()
        if self.carry and not isinstance(self.cache, TaylorOutput):
            raise ValueError("carry=true: only the cache taylor_output can go on with other tokens")
        if self.cache is not None and self.cache.needs_grid and len(self.outline().steps) == 3:
            raise ValueError(
                f"cache={type(self.cache).__name__.lower()}: sees the tokens as a picture, which they are "
                "not in the middle stage; give two stages, or another cache"
            )
        if self.cache is not None and self.cache.whole_run:
            raise ValueError(
                "cache: its schedule or weights are for the model's own noise levels, not a stage's"
            )
        if self.last is not None and self.last.steps is not None:
            raise ValueError(f"last.steps={self.last.steps}: the last stage has its own; leave it null")

    def check(self, grid: tuple[int, int]):
        """ValueError for a grid (rows, columns) of tokens that cannot be halved."""
        if len(self.outline().steps) > 1:
            even(*grid)

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        chosen, stages = self.schedule(flow)
        note = Notes(on_step, flow.grid)
        stage = Stage(self, flow, note)
        x, parents, k = flow.noise(), None, 0
        if len(stages) > 1:
            half = halved_grid(flow.grid)
            x = halved(x, flow.grid, flow.pixels)  # (b, m, c)
            at = half.positions(x.device).expand(len(x), -1, -1)
            fine = torch.zeros_like(at[..., 0])  # (b, m): 1 where at full resolution
            note.begin(x, at, fine)
            x, v = stage(x, stages[0], flow.encodings(grid=half))
            if len(stages) == 3:
                k = self.regions(half.n, chosen.ratio)
                image = (x.float() - stages[0][-1] * v).to(x.dtype)  # Tweedie's estimate
                score = scores(flow, image, half, self.selection, self.as_released)
                rows = score.topk(k).indices.sort().values
                x, at, parents = self.refined(flow, x, at, rows, chosen.ends[0], chosen.c)
                note.begin(x, at, fine.scatter(1, rows, 1.0), score)
                x, v = stage(x, stages[1], flow.encodings(at, half), parents)
            coarse = torch.arange(half.n - k, device=x.device).expand(len(x), -1)  # they stand in front
            x, at, parents = self.refined(flow, x, at, coarse, chosen.ends[-2], chosen.c)
            order = (at[..., 0] * flow.grid.columns + at[..., 1]).argsort()  # row by row again
            x, parents = take(x, order), parents.gather(1, order)
        note.begin(x)
        if self.last is not None:
            return self.last.sample(flow, x, stages[-1], note)
        return stage(x, stages[-1], None, parents)[0]

    def refined(self, flow, x, at, rows, end, c):
        """The tokens with those in `rows` split in four, all noised anew from `end` to the next start."""
        x, at, parents = split(x, at, rows)
        s, scale = ntdm.restart(end, c)
        copies = 4 * rows.shape[1]
        c = c - 1e-6 if self.as_released else c
        z = coupled(flow.generators, x.shape[1] - copies, copies, x.shape[2], c, iid=self.as_released)
        return scale * x + (1 - s) * z.to(x), at, parents

    def regions(self, m: int, ratio: float) -> int:
        """How many of m half-resolution tokens stage 2 refines."""
        return int(m * ratio) if self.as_released else round(m * ratio)

    def schedule(self, flow):
        """The settings with nothing left open, and the noise levels (steps + 1,) of each stage."""
        open_ = self.outline()
        if len(open_.steps) == 1 and not open_.shifts:
            return open_, [flow.sigmas(open_.steps[0])]
        chosen = matched(open_, self.target or max(3.0, flow.shift))
        levels = ntdm.stages(chosen.steps, chosen.ends, chosen.shifts, chosen.c)
        # rounded as timesteps of 1000 sigma are
        return chosen, [(torch.from_numpy(s * 1000).float() / 1000).to(flow.device) for s in levels]

    @property
    def another_image(self) -> bool:
        """With tokens of two sizes it is: what is noised anew owes its noise nothing of the dense run's."""
        return len(self.outline().steps) > 1

    @property
    def own_steps(self) -> int:
        """Steps of all stages: the preset's or those given, never the model's."""
        return sum(self.outline().steps)

    def outline(self) -> Preset:
        """The preset with the settings given in its stead; shifts are empty where to be matched."""
        return PRESETS[self.preset].but(self.steps, self.stages, self.ends, self.shifts, self.c, self.ratio)


class Stage:
    """The Euler steps of one stage after the other. step: of the cache, which may go on through them all."""

    def __init__(self, ralu: RALU, flow, note: Notes):
        self.ralu, self.flow, self.note = ralu, flow, note
        self.velocity: Any = uncached(flow)
        self.step = 0

    def __call__(self, x, sigmas, encodings, parents=None):
        """State and velocity (b, m, c) at the end. parents: of the tokens, (b, m) row numbers of those of the
        stage before, where there was one."""
        if self.ralu.carry and parents is not None:
            self.velocity.carry(parents)
        elif self.ralu.cache is not None:
            self.velocity, self.step = self.ralu.cache.start(self.flow, len(sigmas) - 1), 0
        for s, s_next in pairwise(sigmas):
            v = self.velocity(self.step, x, s, encodings=encodings)
            x = euler(x, v, s_next - s)
            self.note(sigma=s, x=x, v=v, rows=None)
            self.step += 1
        return x, v

"""RALU: start at half resolution, refine edges, then everything (Jeong et al. 2025, arXiv:2507.08422)."""

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, InstanceOf
from pydantic.dataclasses import dataclass

from fovea.methods import ntdm
from fovea.methods.cache import Cache, uncached
from fovea.methods.caches.taylor_output import TaylorOutput
from fovea.methods.ralu_presets import PRESETS, Preset, match_shifts
from fovea.methods.ras import RAS
from fovea.methods.regions import Selection, scores
from fovea.methods.resolution import check_even, coupled_noise, half_grid, halve, split
from fovea.methods.stage_callback import StageCallback
from fovea.methods.tokens import euler_step
from fovea.models.tokens import gather_tokens

Name = Literal["flux_5x", "flux_7x", "sd3_2x", "sd3_3x", "released_4x", "released_7x", "distilled_4nfe"]


@dataclass(frozen=True, config={"extra": "forbid"})
class RALU:
    """Region-adaptive latent upsampling (section 4).

    After a stage that ends at time e, tokens are split into four and all tokens are noised again, so that the
    next stage starts at a time s < e with tokens distributed as the model expects at s.

    preset: named settings; any of the settings below overrides its value.
    stages: number of steps of each stage: at half resolution, with refined regions, at full resolution. Two
        stages omit the middle one; a single stage runs at full resolution.
    steps: total number of steps, distributed over the stages as in the preset.
    ends, c, ratio: see `Preset`.
    shifts: "auto" matches the shifts and c to the stages (`methods.ntdm`). This is the default if only steps,
        stages or ends are given.
    target: shift of the schedule to match; None for the model's own, but at least 3. Matched to a shift near
        1 (Lumina's own), the stages cannot follow the schedule and the solution lies on its bounds: c = 1/4
        and distance 0.14 instead of 0.04.
    selection: criterion for the regions.
    as_released: use the noise and edge detection of the released code.
    cache: cache used within the stages, restarted in each.
    carry: continue the cache across stages instead; each new token inherits its parent's history. Only
        TaylorOutput can.
    last: RAS settings for the last stage.
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
        self.resolved_preset()
        if self.carry and not isinstance(self.cache, TaylorOutput):
            raise ValueError("carry=true: only the cache taylor_output can continue with other tokens")
        if self.cache is not None and self.cache.needs_grid and len(self.resolved_preset().steps) == 3:
            raise ValueError(
                f"cache={type(self.cache).__name__.lower()}: needs the tokens on a full grid, which they are "
                "not in the middle stage; use two stages or another cache"
            )
        if self.cache is not None and self.cache.needs_full_schedule:
            raise ValueError(
                "cache: its schedule or weights are for the model's own noise levels, not a stage's"
            )
        if self.last is not None and self.last.steps is not None:
            raise ValueError(f"last.steps={self.last.steps}: the last stage has its own; leave it null")

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if the grid (rows, columns) of tokens cannot be halved, or RAS does not fit the
        last stage."""
        if len(self.resolved_preset().steps) > 1:
            check_even(*grid)
        if self.last is not None:
            self.last.check(grid, self.resolved_preset().steps[-1])

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        chosen, stages = self.schedule(flow)
        report = StageCallback(on_step, flow.grid)
        stage = Stage(self, flow, report)
        x, parents, k = flow.noise(), None, 0
        if len(stages) > 1:
            half = half_grid(flow.grid)
            x = halve(x, flow.grid, flow.pixels)  # (b, m, c)
            positions = half.positions(x.device).expand(len(x), -1, -1)
            fine = torch.zeros_like(positions[..., 0])  # (b, m): 1 for tokens at full resolution
            report.begin(x, positions, fine)
            x, v = stage(x, stages[0], flow.encodings(grid=half))
            if len(stages) == 3:
                k = self.region_count(half.n, chosen.ratio)
                image = (x.float() - stages[0][-1] * v).to(x.dtype)  # Tweedie's estimate
                score = scores(flow, image, half, self.selection, self.as_released)
                rows = score.topk(k).indices.sort().values
                x, positions, parents = self.refine(flow, x, positions, rows, chosen.ends[0], chosen.c)
                report.begin(x, positions, fine.scatter(1, rows, 1.0), score)
                x, v = stage(x, stages[1], flow.encodings(positions, half), parents)
            coarse = torch.arange(half.n - k, device=x.device).expand(len(x), -1)  # `split` puts them first
            x, positions, parents = self.refine(flow, x, positions, coarse, chosen.ends[-2], chosen.c)
            order = (
                positions[..., 0] * flow.grid.columns + positions[..., 1]
            ).argsort()  # back to row-major order
            x, parents = gather_tokens(x, order), parents.gather(1, order)
        report.begin(x)
        if self.last is not None:
            return self.last.sample(flow, x, stages[-1], report)
        return stage(x, stages[-1], None, parents)[0]

    def refine(self, flow, x, positions, rows, end, c):
        """Split the tokens `rows` in four and noise all tokens, from time `end` to the next stage's start."""
        x, positions, parents = split(x, positions, rows)
        s, scale = ntdm.restart(end, c)
        copies = 4 * rows.shape[1]
        c = c - 1e-6 if self.as_released else c
        z = coupled_noise(flow.generators, x.shape[1] - copies, copies, x.shape[2], c, iid=self.as_released)
        return scale * x + (1 - s) * z.to(x), positions, parents

    def region_count(self, m: int, ratio: float) -> int:
        """Return how many of m half-resolution tokens stage 2 refines."""
        return int(m * ratio) if self.as_released else round(m * ratio)

    def schedule(self, flow):
        """Return the complete settings and the noise levels (steps + 1,) of each stage."""
        preset = self.resolved_preset()
        if len(preset.steps) == 1 and not preset.shifts:
            return preset, [flow.sigmas(preset.steps[0])]
        chosen = match_shifts(preset, self.target or max(3.0, flow.shift))
        levels = ntdm.stages(chosen.steps, chosen.ends, chosen.shifts, chosen.c)
        # rounded like timesteps, which are 1000 sigma
        return chosen, [(torch.from_numpy(s * 1000).float() / 1000).to(flow.device) for s in levels]

    @property
    def another_image(self) -> bool:
        """True with more than one stage: the noise added between stages is not that of the dense run."""
        return len(self.resolved_preset().steps) > 1

    @property
    def own_steps(self) -> int:
        """Total number of steps of all stages, from the preset or the settings, never from the model."""
        return sum(self.resolved_preset().steps)

    def resolved_preset(self) -> Preset:
        """Return the preset with the given settings applied; shifts are empty if they are to be matched."""
        return PRESETS[self.preset].override(
            self.steps, self.stages, self.ends, self.shifts, self.c, self.ratio
        )


class Stage:
    """The Euler steps of the stages, one stage per call.

    step: index of the step for the cache, which may continue through all stages.
    """

    def __init__(self, ralu: RALU, flow, report: StageCallback):
        self.ralu, self.flow, self.report = ralu, flow, report
        self.velocity: Any = uncached(flow)
        self.step = 0

    def __call__(self, x, sigmas, encodings, parents=None):
        """Return state and velocity (b, m, c) at the end of the stage.

        parents: for each token its row number in the previous stage, (b, m), if there was one.
        """
        if self.ralu.carry and parents is not None:
            self.velocity.inherit(parents)
        elif self.ralu.cache is not None:
            self.velocity, self.step = self.ralu.cache.start(self.flow, len(sigmas) - 1), 0
        for s, s_next in pairwise(sigmas):
            v = self.velocity(self.step, x, s, encodings=encodings)
            x = euler_step(x, v, s_next - s)
            self.report(sigma=s, x=x, v=v, rows=None)
            self.step += 1
        return x, v

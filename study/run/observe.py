"""The untimed pass: it counts a cell's FLOPs and records every step, compared with the dense trajectory of
the same samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fovea.eval.speed import count_flops
from fovea.methods import RAS
from fovea.models import Flow, Model
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.records import FlopsRecord
from fovea.study.run.generate import Focus, Method, flow, noise
from fovea.study.run.trace import Trace, read, save
from fovea.study.store import Store

NEAR = 1e-5  # noise levels this close differ only by rounding


@dataclass(frozen=True)
class Trajectory:
    """The predicted images of Euler's dense run of b samples: sigma (s,), and x0 as images (s, b, n, c).

    In float32, so that a method that does the same departs by exactly 0, and on the CPU: 1 MB per step and
    image for FLUX at 1024 px, 210 MB for 50 steps of 4 images."""

    sigma: Tensor
    images: Tensor

    def at(self, sigma: float) -> Tensor:
        """Return x0 (b, n, c). It is constant from one dense sigma down to the next, since x moves along
        v."""
        return self.images[max(int((self.sigma >= sigma - NEAR).sum()) - 1, 0)]

    def departure(self, image: Tensor, sigma: float) -> Tensor:
        """Return the departure of x0 (b, n, c) at sigma for each token, (b, n): see `Trace.error`."""
        size = self.images[-1].square().mean((1, 2)).sqrt()
        return (image - self.at(sigma)).square().mean(2).sqrt() / size[:, None]


class Step(NamedTuple):
    """One step of b images: score, level and error (b, n) as in `Trace`; x0 (b, n, c) if it is kept."""

    sigma: float
    score: Tensor
    level: Tensor
    error: Tensor | None
    image: Tensor | None


@dataclass
class Observer:
    """An `on_step` callback that records the contents of a `Trace`. It synchronizes with the device, so it
    must not be timed.

    state: start of the first step, (b, n, c), unless the step reports it.
    dense: trajectory to compare with.
    keep: this is the dense run, which others are compared with.
    lost: a step had tokens whose positions it did not report.
    """

    flow: Flow
    state: Tensor
    dense: Trajectory | None = None
    keep: bool = False
    steps: list[Step] = field(default_factory=list)
    regions: Tensor | None = None
    lost: bool = False

    def __post_init__(self):
        self.focus = Focus(self.flow)

    def __call__(
        self, *, sigma, x, v, rows=None, density=None, before=None, positions=None, regions=None, **_
    ) -> None:
        """See methods/__init__.py, and methods/stage_callback.py for the arguments of methods in stages."""
        self.focus(rows=rows, density=density)
        state, self.state = self.state if before is None else before, x
        self.regions = self.regions if regions is None else regions
        self.lost |= positions is None and v.shape[1] != self.flow.grid.n
        if not self.lost:
            self.note(float(sigma), state.float() - sigma * v.float(), v.float(), positions)

    def note(self, sigma: float, image: Tensor, v: Tensor, positions: Tensor | None) -> None:
        """Record x0 and velocity of the tokens as they were, (b, m, c). positions: theirs, if not those of
        the full grid."""
        level = torch.ones(len(v), self.flow.grid.n)
        if positions is not None:
            where = layout(positions, self.flow.grid)
            image, v = (laid_out(t, where, self.flow.grid, self.flow.pixels) for t in (image, v))
            level = where.level
        score, image = RAS().score(v, self.flow).cpu(), image.cpu()
        zero = torch.zeros_like(score) if self.keep else None
        error = self.dense.departure(image, sigma) if self.dense else zero
        self.steps.append(Step(sigma, score, level.cpu(), error, image if self.keep else None))

    def trajectory(self) -> Trajectory:
        """Return the trajectory of a run with `keep`."""
        images = [step.image for step in self.steps if step.image is not None]
        return Trajectory(torch.tensor([step.sigma for step in self.steps]), torch.stack(images))

    def traces(self, keys: Sequence[str]) -> dict[str, Trace]:
        """Return the traces by key, in the order of the batch; empty if the run cannot be laid out on the
        grid."""
        if self.lost or not self.steps:
            return {}
        had, score, level = self.focus.array(), self._all("score"), self._all("level")
        error, end = (None, None) if self.steps[0].error is None else (self._all("error"), self._end())
        mixed = bool((level != 1).any())
        grid, sigma = self.flow.grid, np.array([step.sigma for step in self.steps])
        return {
            key: Trace(
                (grid.rows, grid.columns),
                sigma,
                np.ones_like(score[i]) if had is None else had[i],
                score[i],
                None if error is None else error[i],
                None if end is None else end[i],
                level[i] if mixed else None,
                None if self.regions is None else self.regions[i].view(grid.rows // 2, -1).cpu().numpy(),
            )
            for i, key in enumerate(keys)
        }

    def _end(self) -> np.ndarray:
        """Return the departure of the finished images, (b, n)."""
        x = self.state.float().cpu()
        return (self.dense.departure(x, 0.0) if self.dense else torch.zeros(x.shape[:2])).numpy()

    def _all(self, name: str) -> np.ndarray:
        """Stack a field of all steps, (b, s, n)."""
        return torch.stack([getattr(step, name) for step in self.steps], 1).numpy()


class Layout(NamedTuple):
    """The tokens that represent each position of the full grid.

    token (b, n): index of the token that represents each position, in reading order.
    level (b, n): 1 if it represents that position alone, 2 if it represents 2 x 2 positions.
    """

    token: Tensor
    level: Tensor


def layout(positions: Tensor, grid: tuple[int, int]) -> Layout:
    """Return the layout of tokens on the full grid.

    positions: of the tokens on the half-resolution grid, (b, m, 2): integers for half-resolution tokens,
        multiples of one half, in groups of four, for the others.
    grid: rows and columns at full resolution.
    """
    rows, columns = grid
    b, m = positions.shape[:2]
    spot = (2 * positions).round().long()
    place = spot[..., 0] * columns + spot[..., 1]  # (b, m): the first place that each token stands for
    token = torch.full((b, rows * columns), -1, device=positions.device)
    token = token.scatter(1, place, torch.arange(m, device=positions.device).expand(b, m))
    four = token.unflatten(1, (rows // 2, 2, columns // 2, 2))
    coarse = (four[:, :, :1, :, 1:] < 0).expand_as(
        four
    )  # no token right of the first: it represents all four
    token = torch.where(coarse, four[:, :, :1, :, :1], four)
    return Layout(token.flatten(1), 1 + coarse.long().flatten(1))


def laid_out(x: Tensor, where: Layout, grid: tuple[int, int], pixels: int) -> Tensor:
    """Expand tokens x (b, m, c) to the full grid (b, n, c): a latent pixel of a half-resolution token covers
    2 x 2 pixels there. pixels: latent pixels per token, rows times columns."""
    b, _, c = x.shape
    own = x.gather(1, where.token[..., None].expand(-1, -1, c)).unflatten(2, (-1, pixels))
    quarter = quarters(grid, round(pixels**0.5)).to(x.device).expand(b, -1, -1)  # (b, n, pixels)
    whole = torch.arange(pixels, device=x.device).expand_as(quarter)
    pixel = torch.where((where.level == 2)[..., None], quarter, whole)
    return own.gather(3, pixel[:, :, None].expand(-1, -1, own.shape[2], -1)).flatten(2)


def quarters(grid: tuple[int, int], p: int) -> Tensor:
    """Return (n, p * p): for each position and each of its pixels, which pixel of the p x p of the
    half-resolution token covers it."""
    rows, columns = grid
    down, right = (((torch.arange(size)[:, None] % 2) * p + torch.arange(p)) // 2 for size in (rows, columns))
    both = down[:, None, :, None] * p + right[None, :, None, :]  # (rows, columns, p, p)
    return both.flatten(2).flatten(0, 1)


@dataclass
class Tracing:
    """Traces cells that share one loaded model.

    dense: by id of a baseline, its trajectory, made when first needed; None if the baseline failed.
    methods: by cell id.
    """

    plan: Plan
    store: Store
    model: Model
    dense: dict[str, Trajectory | None] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)

    def method(self, cell: Cell) -> Method:
        if cell.id not in self.methods:
            self.methods[cell.id] = instantiate(cell.method, "method", "fovea.methods")
        return self.methods[cell.id]

    def __call__(self, cell: Cell) -> None:
        """Record the cell's FLOPs, as counted and by the closed form, and its traces, unless they are stored
        already."""
        if not self.plan.traced:
            return
        lacking = {s.key for s in self.plan.traced} - set(read(self.store, cell.id))
        if lacking or self.store.samples(cell.id).flops is None:
            self.trace(cell)

    def trace(self, cell: Cell) -> None:
        own, alone = cell.id == cell.dense, cell.role == "sibling"  # whose baseline is of another model
        ready = flow(self.model, cell, self.plan.traced)
        state = noise(self.model, cell, self.plan.traced)
        seen = Observer(ready, state, None if own or alone else self.reference(cell.dense), keep=own)
        flops = count_flops(lambda: self.method(cell)(ready, on_step=seen))[1]
        closed = sum(map(ready.flops, range(len(self.plan.traced))))
        least, images = ready.min_compared(), len(self.plan.traced)
        record = FlopsRecord(cell=cell.id, images=images, counted=flops, closed=closed, least=least)
        self.store.append(record)
        save(self.store, cell.id, seen.traces([s.key for s in self.plan.traced]))
        if own:
            self.dense[cell.id] = seen.trajectory()

    def reference(self, dense: str) -> Trajectory | None:
        """Return a baseline's trajectory; it is made again if the baseline was finished in an earlier run."""
        if dense not in self.dense:
            self.dense[dense] = None
            cell = next((cell for cell in self.plan.cells if cell.id == dense), None)
            if cell and (self.store.samples(dense) or not self.store.samples(dense).failures):
                self.trace(cell)
        return self.dense[dense]

"""Run one cell on one batch: the timed region, what was in focus, and the pass that counts FLOPs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.speed import count_flops, timed
from models import Flow, Model, generator
from study.plan import GENERATION, Cell
from study.prompts import Sample

Method = Callable[..., Tensor]


class NotFinite(ArithmeticError):
    """The method ended in NaN or Inf."""


@dataclass(frozen=True)
class Made:
    """One timed call: images uint8 (b, h, w, 3); seconds of the method, the text encoding and the decoding;
    peak memory of the method in bytes, of torch's allocator on CUDA, of the process on a CPU; tokens per
    image of each velocity call; which tokens ran, (b, steps, n), None where all did."""

    images: np.ndarray
    seconds: float
    encode: float
    decode: float
    memory: int
    evaluated: list[int]
    focus: np.ndarray | None
    grid: tuple[int, int]
    noise: list[str]


@dataclass
class Focus:
    """Notes the rows of each step as they go by. Nothing is copied or waited for inside the timed region."""

    rows: list[Tensor | None] = field(default_factory=list)

    def __call__(self, *, rows: Tensor | None, **_: Any) -> None:
        self.rows.append(rows)

    def array(self, b: int, n: int) -> np.ndarray | None:
        if all(rows is None for rows in self.rows):
            return None
        ran = torch.ones(b, len(self.rows), n, dtype=torch.bool)
        for i, rows in enumerate(self.rows):
            if rows is not None:
                ran[:, i] = torch.zeros(b, n, dtype=torch.bool).scatter(1, rows.cpu(), True)
        return ran.numpy()


def flow(model: Model, cell: Cell, batch: Sequence[Sample]) -> Flow:
    options = {key: cell.model[key] for key in GENERATION if cell.model[key] is not None}
    generators = [generator(s.prompt.text, s.seed) for s in batch]
    return model.flow([s.prompt.text for s in batch], generators=generators, **options)


def make(model: Model, method: Method, cell: Cell, batch: Sequence[Sample]) -> Made:
    """The images of a batch. Timed apart: encoding the text; the method with all it does, its noise included;
    decoding. Every cell encodes the text for itself, so that none profits from another's."""
    noise = noise_hashes(model, cell, batch)
    encoding = timed(lambda: flow(model, cell, batch), model.device)
    ready, focus = encoding.result, Focus()
    run = timed(lambda: method(ready, on_step=focus), model.device)
    x = run.result
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise NotFinite(f"NaN or Inf in the latents of {bad} of {len(batch)} images")
    decoding = timed(lambda: ready.decode(x), model.device)
    images = (decoding.result * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (b, h, w, 3)
    ran = focus.array(len(batch), ready.grid.n)
    times = run.seconds, encoding.seconds, decoding.seconds
    memory = run.memory.process if run.memory.allocator is None else run.memory.allocator
    return Made(images, *times, memory, list(ready.evaluated), ran, tuple(ready.grid), noise)


def noise_hashes(model: Model, cell: Cell, batch: Sequence[Sample]) -> list[str]:
    """Of the initial noise at full resolution, from generators of their own: the same for every cell of a
    pair."""
    grid = model.grid(cell.model["height"], cell.model["width"])
    x = model.noise([generator(s.prompt.text, s.seed) for s in batch], grid).float().cpu().numpy()
    return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in x]


def count(model: Model, method: Method, cell: Cell, sample: Sample) -> dict[str, Any]:
    """FLOPs of one image, counted in a pass of its own, and by the closed form. It is the cell's warm-up
    too."""
    ready = flow(model, cell, [sample])
    run = timed(lambda: count_flops(lambda: method(ready)), model.device)
    closed = sum(ready.flops(active) for active in ready.evaluated)
    return {"flops": run.result[1], "flops_closed": closed, "counted_in": run.seconds}

"""Run one cell on one batch: the timed region, and what was in focus."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fovea.eval.memory import Memory
from fovea.eval.speed import timed
from fovea.eval.watch import State
from fovea.models import Flow, Model, generator
from fovea.study.config.prompts import Sample
from fovea.study.picture import packed, png
from fovea.study.plan.cells import GENERATION, Cell
from fovea.study.plan.fingerprint import digest

Method = Callable[..., Tensor]


class NotFinite(ArithmeticError):
    """The method ended in NaN or Inf."""


@dataclass(frozen=True)
class Made:
    """One timed call: images uint8 (b, h, w, 3); seconds of the method, the text encoding and the decoding;
    peak memory of the method; what went on meanwhile (eval/watch.py). Per image: the
    tokens that went through the transformer, the blocks executed, FLOPs by the closed form. focus: how much
    of the transformer each token of the image had at each step, (b, steps, n), None where all had all."""

    images: np.ndarray
    seconds: float
    encode: float
    decode: float
    memory: Memory
    state: State
    tokens: list[float]
    blocks: list[int]
    flops: list[int]
    focus: np.ndarray | None
    grid: tuple[int, int]
    noise: list[str]


@dataclass
class Focus:
    """Notes the steps as they go by. Nothing is copied or waited for inside the timed region."""

    flow: Flow
    steps: list[tuple[Tensor | None, Tensor | None, int]] = field(default_factory=list)

    def __call__(self, *, rows: Tensor | None, density: Tensor | None = None, **_: Any) -> None:
        self.steps.append((rows, density, len(self.flow.work)))

    def array(self) -> np.ndarray | None:
        """Share of the blocks that ran, times tokens per token of the full grid, where a token ran."""
        b, n, before = len(self.flow.generators), self.flow.grid.n, 0
        had = torch.ones(b, len(self.steps), n)
        for i, (rows, density, after) in enumerate(self.steps):
            if rows is not None:
                had[:, i] = torch.zeros(b, n).scatter(1, rows.cpu(), 1.0)
            if density is not None:
                had[:, i] *= density.cpu()
            shares = [self.flow.blocks(j, before, after) for j in range(b)]
            had[:, i] *= torch.tensor(shares)[:, None] / len(self.flow.model.blocks)
            before = after
        return None if bool((had == 1).all()) else had.clamp(max=1).numpy()


def flow(model: Model, cell: Cell, batch: Sequence[Sample]) -> Flow:
    options = {key: cell.model[key] for key in GENERATION if cell.model[key] is not None}
    generators = [generator(s.prompt.text, s.seed) for s in batch]
    return model.flow([s.prompt.text for s in batch], generators=generators, **options)


def make(model: Model, method: Method, cell: Cell, batch: Sequence[Sample]) -> Made:
    """The images of a batch. Timed apart: encoding the text; the method with all it does, its noise included;
    decoding. Every cell encodes the text for itself, so that none profits from another's."""
    noise = noise_hashes(model, cell, batch)
    encoding = timed(lambda: flow(model, cell, batch), model.device)
    ready, focus = encoding.result, Focus(encoding.result)
    run = timed(lambda: method(ready, on_step=focus), model.device)
    x = run.result
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise NotFinite(f"NaN or Inf in the latents of {bad} of {len(batch)} images")
    decoding = timed(lambda: model.decode(x, ready.grid), model.device)
    images = (decoding.result * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (b, h, w, 3)
    times = run.seconds, encoding.seconds, decoding.seconds
    each = range(len(batch))
    tokens, blocks, flops = ([of(i) for i in each] for of in (ready.tokens, ready.blocks, ready.flops))
    work = tokens, blocks, flops
    return Made(images, *times, run.memory, run.state, *work, focus.array(), tuple(ready.grid), noise)


def noise_hashes(model: Model, cell: Cell, batch: Sequence[Sample]) -> list[str]:
    """Of the initial noise at full resolution: the same for every cell of a pair."""
    x = noise(model, cell, batch).float().cpu().numpy()
    return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in x]


def noise(model: Model, cell: Cell, batch: Sequence[Sample]) -> Tensor:
    """The initial noise at full resolution, from generators of its own."""
    grid = model.grid(cell.model["height"], cell.model["width"])
    return model.noise([generator(s.prompt.text, s.seed) for s in batch], grid)


def record(
    made: Made, i: int, sample: Sample, batch: Sequence[Sample], random_weights: bool
) -> tuple[bytes, dict[str, Any]]:
    """The PNG and the record of the i-th image of a batch."""
    times = {"seconds": made.seconds, "encode_seconds": made.encode, "decode_seconds": made.decode}
    what = {
        "key": sample.key,
        "prompt": sample.prompt.text,
        "prompt_id": sample.prompt.id,
        "seed": sample.seed,
        "noise": made.noise[i],
        "time": now(),
        "batch": {"id": digest([s.key for s in batch]), "size": len(batch), **times, **_around(made)},
        "tokens": made.tokens[i],
        "blocks": made.blocks[i],
        "flops": made.flops[i],
        "focus": packed(None if made.focus is None else made.focus[i], made.grid),
        "random_weights": random_weights,
    }
    return png(made.images[i], random_weights), what


def _around(made: Made) -> dict[str, Any]:
    """Peak memory in bytes, of torch's allocator on CUDA and of the process everywhere; the machine's
    state."""
    of_gpu, of_process, since_start = made.memory
    return {
        "memory": of_process if of_gpu is None else of_gpu,
        "memory_process": of_process,
        "memory_since_start": since_start,
        "state": made.state,
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

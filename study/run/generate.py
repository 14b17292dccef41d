"""Run one cell on one batch: the timed region, and the share of the transformer that each token used."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fovea.eval.memory import Memory
from fovea.eval.speed import graphs, timed
from fovea.eval.telemetry import State
from fovea.models import Flow, Model, generator
from fovea.study.config.prompts import Sample
from fovea.study.picture import png
from fovea.study.plan.cells import GENERATION, Cell
from fovea.study.plan.fingerprint import digest
from fovea.study.records import BatchRecord, ImageRecord
from fovea.study.store import Store

Method = Callable[..., Tensor]


class NotFinite(ArithmeticError):
    """The method's result contains NaN or Inf."""


class WrongShape(ValueError):
    """The method returned another number of images than requested, or latents of another shape."""


class ClockStopped(ArithmeticError):
    """No time passed while images were made, so this is not a measurement."""


@dataclass(frozen=True)
class BatchResult:
    """One timed call.

    images: uint8 (b, h, w, 3).
    seconds, encode, decode: time of the method, of text encoding and of decoding.
    memory: peak memory of the method.
    state: what else went on meanwhile (eval/telemetry.py).
    tokens, blocks, flops: per image, tokens processed by the transformer, blocks executed, FLOPs by the
        closed form.
    focus: share of the transformer that each token used at each step, (b, steps, n); None if all tokens used
        all of it.
    grid: rows and columns of tokens.
    noise: per image, hash of the initial noise.
    """

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

    @property
    def total_seconds(self) -> float:
        """Seconds including text encoding and decoding."""
        return self.seconds + self.encode + self.decode


class Origin(NamedTuple):
    """The device a batch was made on, and whether the model has random weights."""

    device: str
    random_weights: bool


@dataclass
class Focus:
    """An `on_step` callback that records which tokens ran. It copies nothing and never waits inside the timed
    region."""

    flow: Flow
    steps: list[tuple[Tensor | None, Tensor | None, int]] = field(default_factory=list)

    def __call__(self, *, rows: Tensor | None, density: Tensor | None = None, **_: Any) -> None:
        self.steps.append((rows, density, len(self.flow.block_runs)))

    def array(self) -> np.ndarray | None:
        """Return each token's share of the blocks that ran, times its density (tokens per token of the full
        grid); 0 where no token ran."""
        b, n, before = len(self.flow.generators), self.flow.grid.n, 0
        used = torch.ones(b, len(self.steps), n)
        for i, (rows, density, after) in enumerate(self.steps):
            if rows is not None:
                used[:, i] = torch.zeros(b, n).scatter(1, rows.cpu(), 1.0)
            if density is not None:
                used[:, i] *= density.cpu()
            shares = [self.flow.blocks(j, before, after) for j in range(b)]
            used[:, i] *= torch.tensor(shares)[:, None] / len(self.flow.transformer.blocks)
            before = after
        return None if bool((used == 1).all()) else used.clamp(max=1).numpy()


def flow(model: Model, cell: Cell, batch: Sequence[Sample]) -> Flow:
    options = {key: cell.model[key] for key in GENERATION if cell.model[key] is not None}
    generators = [generator(s.prompt.text, s.seed) for s in batch]
    return model.flow([s.prompt.text for s in batch], generators=generators, **options)


def generate_batch(model: Model, method: Method, cell: Cell, batch: Sequence[Sample]) -> BatchResult:
    """Make the images of a batch. Timed separately: text encoding; the method, including its noise; decoding.
    Every cell encodes the text itself, so none benefits from another's work."""
    noise, shape = noise_hashes(model, cell, batch)
    encoding = timed(lambda: flow(model, cell, batch), model.device)
    ready, focus = encoding.result, Focus(encoding.result)
    graphs_before = graphs()
    run = timed(lambda: method(ready, on_step=focus), model.device)
    compiled = graphs() - graphs_before
    x = run.result
    if not isinstance(x, Tensor) or x.shape != shape:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise WrongShape(f"the method gave {found}, not latents of shape {tuple(shape)}")
    if run.seconds <= 0:
        raise ClockStopped(
            f"the clock said {run.seconds:g} s for {len(batch)} images: it stands still or jumps"
        )
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise NotFinite(f"NaN or Inf in the latents of {bad} of {len(batch)} images")
    decoding = timed(lambda: model.decode(x, ready.grid), model.device)
    model.offload()
    images = (decoding.result * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (b, h, w, 3)
    times = run.seconds, encoding.seconds, decoding.seconds
    each = range(len(batch))
    tokens, blocks, flops = ([count(i) for i in each] for count in (ready.tokens, ready.blocks, ready.flops))
    work = tokens, blocks, flops
    state = run.state | ({"graphs_compiled": compiled} if compiled else {})
    return BatchResult(images, *times, run.memory, state, *work, focus.array(), tuple(ready.grid), noise)


def noise_hashes(model: Model, cell: Cell, batch: Sequence[Sample]) -> tuple[list[str], torch.Size]:
    """Return hashes of the initial noise at full resolution, equal for all cells of a pair, and its shape,
    which is that of the final latents."""
    x = noise(model, cell, batch)
    images = x.float().cpu().numpy()
    return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images], x.shape


def noise(model: Model, cell: Cell, batch: Sequence[Sample]) -> Tensor:
    """Return the initial noise at full resolution, from fresh generators."""
    grid = model.grid(cell.model["height"], cell.model["width"])
    return model.noise([generator(s.prompt.text, s.seed) for s in batch], grid)


def store_batch(
    store: Store,
    cell: Cell,
    result: BatchResult,
    batch: Sequence[Sample],
    missing: Collection[str],
    origin: Origin,
) -> None:
    """Store what is missing of a batch: images first, then their focus, then the record that makes them
    count."""
    lacking = [(i, s) for i, s in enumerate(batch) if s.key in missing]
    name = digest([s.key for s in batch])
    files = store.write_images(
        cell.id, {s.key: png(result.images[i], origin.random_weights) for i, s in lacking}
    )
    if result.focus is not None:
        steps = result.focus.shape[1]
        focus = result.focus.reshape(len(batch), steps, *result.grid)
        store.write_focus(cell.id, name, {s.key: focus[i] for i, s in enumerate(batch)})
    images = tuple(_image(result, i, s, files[s.key]) for i, s in lacking)
    store.append(_batch(store.session, cell, name, result, len(batch), images, origin))


def _image(result: BatchResult, i: int, sample: Sample, file: Mapping[str, Any]) -> ImageRecord:
    return ImageRecord(
        key=sample.key,
        prompt_id=sample.prompt.id,
        prompt=sample.prompt.text,
        seed=sample.seed,
        noise=result.noise[i],
        tokens=result.tokens[i],
        blocks=result.blocks[i],
        flops=result.flops[i],
        **file,
    )


def _batch(
    session: str,
    cell: Cell,
    name: str,
    result: BatchResult,
    size: int,
    images: tuple[ImageRecord, ...],
    origin: Origin,
) -> BatchRecord:
    of_gpu, of_process, since_start = result.memory
    return BatchRecord(
        cell=cell.id,
        id=name,
        size=size,
        session=session,
        device=origin.device,
        time=now(),
        seconds=result.seconds,
        encode_seconds=result.encode,
        decode_seconds=result.decode,
        memory=of_process if of_gpu is None else of_gpu,
        memory_process=of_process,
        memory_since_start=since_start,
        state=result.state,
        random_weights=origin.random_weights,
        images=images,
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

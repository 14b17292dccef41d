"""Measure the harness's overhead at full size, with a model that sleeps for as long as a real one would run
on a GPU and returns 1024 px images that compress as badly as photographs.

    python -m scripts.benchmark_overhead --seconds 12 --batches 8 --folder FOLDER

SD3-medium takes about 3 s per image of 28 steps on an A100, 12 s for a batch of 4. Everything but the model
is
real: drawing and hashing noise, recording what ran, rounding the images to 8 bits, compressing, writing and
flushing them, records, checksums. The overhead is wall time / slept time - 1. Each batch is written while the
next one runs, so only the last one is waited for. On a busy machine CPU seconds are more reliable. Two are
printed: those between two batches, three quarters of which round the images (negligible on a real device),
and those of the whole process, which include work done while the next batch runs."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fovea.eval import speed
from fovea.models.tokens import Grid
from fovea.study.config.prompts import Prompt, Sample
from fovea.study.plan.plan import make as planned
from fovea.study.run import execute
from fovea.study.store import Store

BATCH, SIDE, STEPS, BLOCKS = 4, 1024, 28, 24
GRID, CHANNELS = Grid(64, 64), 64  # SD3's tokens
RUN = GRID.n // 4  # tokens that run on a step, as in a sparse method


def photograph(seed: int) -> np.ndarray:
    """Return uint8 (1024, 1024, 3): smooth shapes and a little noise, a 1.7 MB PNG like a photograph's."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(128, 60, (1, 3, 16, 16)))
    smooth = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic")[0].permute(1, 2, 0).numpy()
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


class Sleeping:
    """Stand-in for a model and its method: sleeps as this process would while a device works."""

    device = torch.device("meta")

    def __init__(self, seconds: float):
        self.seconds = seconds
        images = np.stack([photograph(i) for i in range(BATCH)])
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2) / 255

    def grid(self, height: int, width: int) -> Grid:
        return GRID

    def noise(self, generators: Sequence[torch.Generator], grid: Grid) -> Tensor:
        return torch.stack([torch.randn(grid.n, CHANNELS, generator=own) for own in generators])

    def flow(self, prompts: Sequence[str], *, generators: Sequence[torch.Generator], **_: Any) -> Any:
        counted = {name: lambda *_: 1 for name in ("tokens", "blocks", "flops")}
        transformer = SimpleNamespace(blocks=range(BLOCKS))
        return SimpleNamespace(
            generators=generators, grid=GRID, block_runs=[], transformer=transformer, **counted
        )

    def method(self, flow: Any, on_step: Any) -> Tensor:
        rows = torch.arange(RUN).expand(len(flow.generators), RUN)
        for _ in range(STEPS):
            time.sleep(self.seconds / STEPS)
            on_step(rows=rows)
        return torch.zeros(len(flow.generators), GRID.n, CHANNELS)

    def decode(self, x: Tensor, grid: Grid) -> Tensor:
        return self.images

    def offload(self) -> None:
        pass


def overhead(seconds: float, batches: int, folder: Path) -> tuple[float, float, float, float]:
    """Return the overhead (wall time until the last batch was generated / slept time - 1), the seconds until
    it was also written, and CPU seconds per batch: of the generating thread and of the whole process."""
    speed.CLOCKS["meta"] = speed.by_clock
    plan = planned(["sweep=none", f"batch={BATCH}", f"results={folder}", "name=overhead"])
    drawn = range(BATCH * batches)
    samples = [Sample(f"{i:016x}", Prompt(str(i), f"a picture of {i} foxes"), 0) for i in drawn]
    plan, model = replace(plan, samples=samples), Sleeping(seconds)
    tracing = SimpleNamespace(method=lambda cell: model.method)
    loaded: Any = SimpleNamespace(model=model, halved=set(), tracing=tracing)
    with execute.Runner(plan, Store(plan.folder)) as runner:
        began, own, every = time.perf_counter(), time.thread_time(), time.process_time()
        for batch in runner.rounds({plan.cells[0].id: {s.key for s in samples}}):
            runner.batch(loaded, plan.cells[0], batch, {s.key for s in batch})
        made, own = time.perf_counter(), time.thread_time() - own
        runner.writing.wait()
        written, every = time.perf_counter(), time.process_time() - every
    return (made - began) / (seconds * batches) - 1, written - made, own / batches, every / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="seconds a batch of 4 takes")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    share, last, own, every = overhead(given.seconds, given.batches, given.folder)
    print(f"overhead: {share:.2%} of the wall time; once, at the end, {last:.2f} s to write the last batch")
    print(
        f"processor: {own:.3f} s between batches of {BATCH}, {own / given.seconds:.2%}; "
        f"{every:.2f} s with what is done beside the next one"
    )


if __name__ == "__main__":
    main()

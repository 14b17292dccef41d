"""What the harness costs beside the model, at full size: a model that sleeps for as long as one on a GPU
works and gives images of 1024 px that are as hard to pack as photographs.

    python -m scripts.benchmark_overhead --seconds 12 --batches 8 --folder FOLDER

SD3-medium takes some 3 s per image of 28 steps on an A100, 12 s for a batch of 4. All but the model is real:
encoding, writing and flushing images, records, checksums. The overhead is the wall time over what was slept,
less one; the processor's seconds say what of a core it takes meanwhile, also on a machine that is busy."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fovea.eval.memory import Memory
from fovea.study.config.prompts import Prompt, Sample
from fovea.study.plan.plan import make as planned
from fovea.study.run import execute
from fovea.study.run.generate import Made
from fovea.study.store import Store

BATCH, SIDE = 4, 1024


def photograph(seed: int) -> np.ndarray:
    """(1024, 1024, 3): smooth shapes and a little noise; its PNG takes 1.7 MB, as a photograph's does."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(128, 60, (1, 3, 16, 16)))
    smooth = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic")[0].permute(1, 2, 0).numpy()
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def sleeping(seconds: float) -> Any:
    """Stands in for `generate.make`: a device works meanwhile, and this process waits."""
    images = np.stack([photograph(i) for i in range(BATCH)])

    def make(model: Any, method: Any, cell: Any, batch: Sequence[Sample]) -> Made:
        time.sleep(seconds)
        each, noise, memory = [1] * len(batch), ["0" * 16] * len(batch), Memory(None, 1, False)
        tokens = list(map(float, each))
        return Made(images, seconds, 0.0, 0.0, memory, {}, tokens, each, each, None, (64, 64), noise)

    return make


def overhead(seconds: float, batches: int, folder: Path) -> tuple[float, float]:
    """As a share of what was slept, and the processor's seconds of a batch."""
    plan = planned(["sweep=none", f"batch={BATCH}", f"results={folder}", "name=overhead"])
    drawn = range(BATCH * batches)
    samples = [Sample(f"{i:016x}", Prompt(str(i), f"a picture of {i} foxes"), 0) for i in drawn]
    plan = replace(plan, samples=samples)
    model, tracing = SimpleNamespace(device=torch.device("meta")), SimpleNamespace(method=lambda cell: None)
    loaded: Any = SimpleNamespace(model=model, halved=set(), tracing=tracing)
    with execute.Runner(plan, Store(plan.folder)) as runner:
        began, worked = time.perf_counter(), time.process_time()
        for batch in runner.rounds({plan.cells[0].id: {s.key for s in samples}}):
            runner.batch(loaded, plan.cells[0], batch, {s.key for s in batch})
        runner.writing.wait()
        whole, worked = time.perf_counter() - began, time.process_time() - worked
    return whole / (seconds * batches) - 1, worked / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="that a batch of 4 takes")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    execute.make = sleeping(given.seconds)
    share, worked = overhead(given.seconds, given.batches, given.folder)
    print(f"overhead: {share:.2%}; {worked:.2f} s of a processor for each batch of {BATCH}")


if __name__ == "__main__":
    main()

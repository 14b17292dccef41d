"""The training loop shared by the training scripts; can be killed at any time and resumes bit for bit.

Data and noise are functions of the step number, so the state is the weights, optimisers, average and step.
Training ends after a number of steps or, for a rented machine, of minutes. On a GPU a step can be one CUDA
graph: models this small spend most of a step launching about 3,000 kernels one by one.
"""

import itertools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from scripts.muon import Muon

CLIP = 1.0  # maximum norm of the gradient
SAVED = 120.0  # seconds between checkpoints

Batch = dict[str, torch.Tensor]
Data = Callable[[int, float], Batch]
"""(step, progress in [0, 1]) -> the batch of the step. Rows are images."""
Loss = Callable[..., torch.Tensor]
"""The batch's tensors, as keyword arguments -> the loss."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """bfloat16 matrix products over float32 weights."""
    return torch.autocast(where.type, dtype=torch.bfloat16)


def to_device(x: np.ndarray, where: torch.device) -> torch.Tensor:
    """Copy an array to the device, without waiting for the transfer."""
    here = torch.from_numpy(x)
    return here.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else here


class Batches(Dataset):
    """A data set whose item `step` is the batch `make(step)`."""

    def __init__(self, make: Callable[[int], Any]):
        self.make = make

    def __getitem__(self, step: int) -> Any:
        return self.make(step)


def prefetched(make: Callable[[int], Any], workers: int, end: int = 10**9) -> Callable[[int], Any]:
    """Return `make`, for consecutive steps before `end`, prefetched by `workers` processes; with 0 workers,
    `make` itself."""
    if not workers:
        return make
    running: list[Any] = []

    def take(step: int) -> Any:
        if not running:
            steps: Any = range(step, end)
            # forked, so that `make` need not be pickled
            how = {"num_workers": workers, "multiprocessing_context": "fork"}
            running.append(iter(DataLoader(Batches(make), sampler=steps, batch_size=None, **how)))
        return next(running[0])

    return take


def optimisers(module: nn.Module, lr: float, decay: float, muon: float | None) -> list[torch.optim.Optimizer]:
    """Return AdamW, which decays matrices only, and with `muon`, Muon at that rate for matrices in blocks."""
    named = [(k, p) for k, p in module.named_parameters() if p.requires_grad]
    inside = [p for k, p in named if muon and p.ndim == 2 and ("blocks." in k or "layers." in k)]
    rest = [p for _, p in named if not any(p is q for q in inside)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    where = rest[0].device
    how: Any = {"fused": True, "capturable": where.type == "cuda"}
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=torch.tensor(lr, device=where), betas=(0.9, 0.99), **how)
    ]
    if muon:
        found.append(Muon(inside, torch.tensor(muon, device=where), weight_decay=decay))
    for optim in found:
        for group in optim.param_groups:
            group |= {"lr": group["lr"].clone(), "peak": group["lr"].item()}
    return found


def rate(step: int, part: float, warmup: int = 100, hold: float = 0.0) -> float:
    """Return the learning rate's factor: linear warm-up, constant until `hold`, half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if part < hold else 0.5 * (1 + math.cos(math.pi * (part - hold) / (1 - hold)))


def save(path: Path, state: dict) -> None:
    """Save atomically: write to another file, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    os.replace(beside, path)


class Average:
    """Exponential moving average of a module's weights, with a smaller decay in the first steps."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.own = module.state_dict()  # the module's own tensors, updated in place
        self.weights = {k: v.detach().clone() for k, v in self.own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        real = [k for k, v in self.own.items() if v.is_floating_point()]
        lerp_ = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  all tensors at once
        lerp_([self.weights[k] for k in real], [self.own[k] for k in real], 1 - keep)
        for k in self.own.keys() - set(real):
            self.weights[k].copy_(self.own[k])


class Step:
    """Forward, backward and update of a module on one batch; returns the loss."""

    def __init__(self, module: nn.Module, loss: Loss, optims: list[torch.optim.Optimizer]):
        self.module, self.loss, self.optims = module, loss, optims

    def __call__(self, batch: Batch) -> torch.Tensor:
        value = self.loss(**batch)
        value.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        for optim in self.optims:
            optim.step()
        self.module.zero_grad(set_to_none=True)
        return value.detach()


class Graphed:
    """A Step that runs as one CUDA graph from the third batch of each shape on.

    The first two batches run eagerly, on a side stream, and create the optimisers' state. Graphs share one
    memory pool: only one runs at a time, and only its loss is kept there.
    """

    def __init__(self, step: Step):
        self.step, self.stream, self.pool = step, torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self.seen: Counter[Any] = Counter()
        self.graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Batch, torch.Tensor]] = {}

    def __call__(self, batch: Batch) -> torch.Tensor:
        shape = tuple(x.shape for x in batch.values())
        self.seen[shape] += 1
        if self.seen[shape] <= 2:
            return self.run_eagerly(batch)
        if shape not in self.graphs:
            self.graphs[shape] = self.capture(batch)
        graph, inputs, value = self.graphs[shape]
        for name, x in batch.items():
            inputs[name].copy_(x)
        graph.replay()
        return value

    def run_eagerly(self, batch: Batch) -> torch.Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            value = self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return value

    def capture(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, torch.Tensor]:
        inputs, graph = {name: x.clone() for name, x in batch.items()}, torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            value = self.step(inputs)
        return graph, inputs, value


def train(
    module: nn.Module,
    data: Data,
    loss: Loss,
    *,
    steps: int,
    minutes: float | None = None,
    lr: float,
    folder: Path,
    decay: float = 0.0,
    muon: float | None = None,
    ema: float | None = None,
    warmup: int = 100,
    hold: float = 0.0,
    stop: int | None = None,
    graphs: bool = False,
    watch: Callable[[int], None] | None = None,
) -> dict:
    """Minimise `loss` of `data` over the parameters of `module`; resume from `folder`/state.pt, if it exists.

    Runs for `steps` or, if given, for `minutes` instead. `stop` ends early, as a kill would. `graphs` runs
    steps as CUDA graphs. `watch(step)` is called at each checkpoint. Writes log.jsonl (step, loss, images,
    seconds). Returns the averaged weights. Raises ValueError unless minutes > 0, and FloatingPointError once
    the loss or a weight is not finite; the last checkpoint stays.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"minutes={minutes:g}: more than 0 are needed")
    optims = optimisers(module, lr, decay, muon)
    average = Average(module, 0.0 if ema is None else ema)
    path = folder / "state.pt"
    first, images, spent = resume(path, module, optims, average)
    run_step: Any = Step(module, loss, optims)
    run_step = Graphed(run_step) if graphs else run_step
    start, saved, before = time.perf_counter(), spent, spent

    def keep(step: int) -> None:
        require_finite(all(x.isfinite().all() for x in module.state_dict().values()), step)
        save(path, state(module, optims, average) | {"step": step, "images": images, "seconds": spent})
        if watch:
            watch(step)

    for step in itertools.count(first):
        part = spent / (60 * minutes) if minutes else step / steps
        if part >= 1 or (stop is not None and step >= stop):
            break
        for group in (g for o in optims for g in o.param_groups):
            group["lr"].fill_(group["peak"] * rate(step, part, warmup, hold))
        batch = data(step, part)
        value = run_step(batch)
        average.update(step)
        images += len(next(iter(batch.values())))
        spent = before + time.perf_counter() - start
        if step % 10 == 9 or step == steps - 1:
            logged = value.item()
            require_finite(math.isfinite(logged), step + 1)
            _log(folder, step=step + 1, loss=logged, images=images, seconds=round(spent, 1))
        if spent - saved > SAVED:
            saved = spent
            keep(step + 1)
    keep(step)
    return average.weights


def require_finite(finite: bool, step: int) -> None:
    """Raise FloatingPointError unless the loss or the weights are finite."""
    if not finite:
        raise FloatingPointError(
            f"not finite at step {step}; the last checkpoint is kept. From the first steps on: try --eager"
        )


def state(module: nn.Module, optims: list[torch.optim.Optimizer], average: Average) -> dict:
    own = {"module": module.state_dict(), "average": average.weights}
    return own | {"optims": [optim.state_dict() for optim in optims]}


def resume(
    path: Path, module: nn.Module, optims: list[torch.optim.Optimizer], average: Average
) -> tuple[int, int, float]:
    """Load the saved state, if there is one. Return the next step, the images seen and the seconds spent."""
    if not path.exists():
        return 0, 0, 0.0
    known = torch.load(path, map_location=device(), weights_only=True)
    module.load_state_dict(known["module"])
    for optim, own in zip(optims, known["optims"], strict=True):
        optim.load_state_dict(own)
    average.weights = known["average"]
    return known["step"], known["images"], known["seconds"]


def _log(folder: Path, **row: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def read_log(folder: Path) -> list[dict]:
    """Return the rows of log.jsonl; of steps that a resumed run repeated, the later ones."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return list({row["step"]: row for row in rows}.values())

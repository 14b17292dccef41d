"""What the training scripts share: a loop that may be killed at any moment and goes on bit for bit.

Data and noise are functions of the step's number, so the state is weights, optimisers, average and step.
Training ends after a number of steps or, on a rented machine, after some minutes. On a GPU a step can be one
CUDA graph: models this small spend most of it on launching some 3,000 kernels one by one.
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

CLIP = 1.0  # the largest norm of all gradients
SAVED = 120.0  # seconds between checkpoints

Batch = dict[str, torch.Tensor]
Data = Callable[[int, float], Batch]
"""What a step learns from, of its number and the part of the training that is done. Rows are images."""
Loss = Callable[..., torch.Tensor]
"""The loss of a batch, whose tensors are its arguments."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """bfloat16 matrix products over float32 weights."""
    return torch.autocast(where.type, dtype=torch.bfloat16)


def sent(x: np.ndarray, where: torch.device) -> torch.Tensor:
    """The array on the device, which is not waited for."""
    here = torch.from_numpy(x)
    return here.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else here


class Batches(Dataset):
    """The batch of each step, `make(step)`."""

    def __init__(self, make: Callable[[int], Any]):
        self.make = make

    def __getitem__(self, step: int) -> Any:
        return self.make(step)


def ahead(make: Callable[[int], Any], workers: int, end: int = 10**9) -> Callable[[int], Any]:
    """`make` of one step after the other, before `end`, made ahead by `workers` processes; by none of them,
    when asked for."""
    if not workers:
        return make
    running: list[Any] = []

    def take(step: int) -> Any:
        if not running:
            steps: Any = range(step, end)
            how = {"num_workers": workers, "multiprocessing_context": "fork"}  # nothing need be pickled
            running.append(iter(DataLoader(Batches(make), sampler=steps, batch_size=None, **how)))
        return next(running[0])

    return take


def optimisers(module: nn.Module, lr: float, decay: float, muon: float | None) -> list[torch.optim.Optimizer]:
    """AdamW, decaying matrices only; with `muon`, Muon at that rate for the matrices inside blocks."""
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
    """Factor on the learning rate: linear warm-up, constant to the part `hold`, half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if part < hold else 0.5 * (1 + math.cos(math.pi * (part - hold) / (1 - hold)))


def save(path: Path, state: dict) -> None:
    """Write beside, then rename: the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    os.replace(beside, path)


class Average:
    """Exponential moving average of the weights of a module; young averages follow faster."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.own = module.state_dict()  # the module's tensors, which steps change in place
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
    """Forward, backward and update of a module on one batch; gives the loss."""

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
    """The same step, from the third batch of each shape on as one CUDA graph.

    The first two run as they are, on a stream of their own, and make the optimisers' state. Graphs share
    their memory: one at a time runs, and keeps nothing there but its loss.
    """

    def __init__(self, step: Step):
        self.step, self.stream, self.pool = step, torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self.seen: Counter[Any] = Counter()
        self.graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Batch, torch.Tensor]] = {}

    def __call__(self, batch: Batch) -> torch.Tensor:
        shape = tuple(x.shape for x in batch.values())
        self.seen[shape] += 1
        if self.seen[shape] <= 2:
            return self.apart(batch)
        if shape not in self.graphs:
            self.graphs[shape] = self.captured(batch)
        graph, inputs, value = self.graphs[shape]
        for name, x in batch.items():
            inputs[name].copy_(x)
        graph.replay()
        return value

    def apart(self, batch: Batch) -> torch.Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            value = self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return value

    def captured(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, torch.Tensor]:
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
    """Minimise `loss` of `data` over the parameters of `module`; goes on from `folder`/state.pt, if there.

    It takes `steps` or, if they are given, `minutes`, however many steps that makes. `stop` ends early, as a
    kill would. `graphs` makes CUDA graphs of the steps. Writes log.jsonl (step, loss, images, seconds).
    Returns the averaged weights. ValueError for minutes that are none.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"minutes={minutes:g}: more than 0 are needed")
    optims = optimisers(module, lr, decay, muon)
    average = Average(module, 0.0 if ema is None else ema)
    path = folder / "state.pt"
    first, images, spent = resumed(path, module, optims, average)
    one: Any = Step(module, loss, optims)
    one = Graphed(one) if graphs else one
    start, saved, before = time.perf_counter(), spent, spent

    def keep(step: int) -> None:
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
        value = one(batch)
        average.update(step)
        images += len(next(iter(batch.values())))
        spent = before + time.perf_counter() - start
        if step % 10 == 9 or step == steps - 1:
            _log(folder, step=step + 1, loss=value.item(), images=images, seconds=round(spent, 1))
        if spent - saved > SAVED:
            saved = spent
            keep(step + 1)
    keep(step)
    return average.weights


def state(module: nn.Module, optims: list[torch.optim.Optimizer], average: Average) -> dict:
    own = {"module": module.state_dict(), "average": average.weights}
    return own | {"optims": [optim.state_dict() for optim in optims]}


def resumed(
    path: Path, module: nn.Module, optims: list[torch.optim.Optimizer], average: Average
) -> tuple[int, int, float]:
    """All as it was saved, if it was. Gives the step to go on with, the images seen and the seconds spent."""
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
    """The rows of log.jsonl, without those that a resumed run wrote again."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return list({row["step"]: row for row in rows}.values())

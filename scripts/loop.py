"""What the training scripts share: a loop that may be killed at any moment and goes on bit for bit.

Data and noise are functions of the step's number, so the state is weights, optimisers, average and step.
Training ends after a number of steps or, on a rented machine, after some minutes.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

Loss = Callable[[int, float], tuple[torch.Tensor, int]]
"""Of a step's number and the part of the training that is done: the loss, and of how many images."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """bfloat16 matrix products over float32 weights."""
    return torch.autocast(where.type, dtype=torch.bfloat16)


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
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)]
    if muon:
        found.append(torch.optim.Muon(inside, lr=muon, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    for group in (g for o in found for g in o.param_groups):
        group["peak"] = group["lr"]
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
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        own = module.state_dict()
        real = [k for k, v in own.items() if v.is_floating_point()]
        lerp_ = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  all tensors at once
        lerp_([self.weights[k] for k in real], [own[k] for k in real], 1 - keep)
        for k in own.keys() - set(real):
            self.weights[k].copy_(own[k])


def train(
    module: nn.Module,
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
    clip: float = 1.0,
    stop: int | None = None,
    minutes_between: float = 2.0,
    watch: Callable[[int], None] | None = None,
) -> dict:
    """Minimise `loss` over the parameters of `module`; goes on from `folder`/state.pt if there is one.

    It takes `steps` or, if they are given, `minutes`, however many steps that makes. `stop` ends early, as a
    kill would. Writes log.jsonl (step, loss, images, seconds). Returns the averaged weights. ValueError for
    minutes that are none.
    """
    if minutes is not None and minutes <= 0:
        raise ValueError(f"minutes={minutes:g}: more than 0 are needed")
    optims = optimisers(module, lr, decay, muon)
    average = Average(module, 0.0 if ema is None else ema)
    path = folder / "state.pt"
    first, images, spent = resumed(path, module, optims, average)
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
            group["lr"] = group["peak"] * rate(step, part, warmup, hold)
        value, n = loss(step, part)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        for optim in optims:
            optim.step()
        module.zero_grad(set_to_none=True)
        average.update(module, step)
        images, spent = images + n, before + time.perf_counter() - start
        if step % 10 == 9 or step == steps - 1:
            _log(folder, step=step + 1, loss=value.item(), images=images, seconds=round(spent, 1))
        if spent - saved > 60 * minutes_between:
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

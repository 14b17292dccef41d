"""What the training scripts share: a loop that may be killed at any moment and goes on bit for bit.

Data and noise are functions of the step's number, so the state is weights, optimisers, average and step.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """bfloat16 matrix products over float32 weights."""
    return torch.autocast(where.type, dtype=torch.bfloat16)


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


def rate(step: int, steps: int, warmup: int = 100, hold: float = 0.0) -> float:
    """Factor on the learning rate: linear warm-up, constant to hold * steps, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, hold * steps)
    return 1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))


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
        for k, v in module.state_dict().items():
            if v.is_floating_point():
                self.weights[k].lerp_(v, 1 - keep)
            else:
                self.weights[k].copy_(v)


def train(
    module: nn.Module,
    loss: Callable[[int], torch.Tensor],
    *,
    steps: int,
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
    """Minimise `loss(step)` over the parameters of `module`; goes on from `folder`/state.pt if there is one.

    `stop` ends early, as a kill would. Writes log.jsonl (step, loss, seconds). Returns the averaged weights.
    """
    optims = optimisers(module, lr, decay, muon)
    average = Average(module, 0.0 if ema is None else ema)
    path, last = folder / "state.pt", min(steps, stop or steps)
    first, spent = resumed(path, module, optims, average)
    start = saved = time.perf_counter()
    for step in range(first, last):
        for group in (g for o in optims for g in o.param_groups):
            group["lr"] = group["peak"] * rate(step, steps, warmup, hold)
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        for optim in optims:
            optim.step()
        module.zero_grad(set_to_none=True)
        average.update(module, step)
        now = time.perf_counter()
        if step % 10 == 9 or step == steps - 1:
            _log(folder, step=step + 1, loss=value.item(), seconds=round(spent + now - start, 1))
        if step + 1 == last or now - saved > 60 * minutes_between:
            saved = now
            save(path, state(module, optims, average) | {"step": step + 1, "seconds": spent + now - start})
            if watch:
                watch(step + 1)
    return average.weights


def state(module: nn.Module, optims: list[torch.optim.Optimizer], average: Average) -> dict:
    own = {"module": module.state_dict(), "average": average.weights}
    return own | {"optims": [optim.state_dict() for optim in optims]}


def resumed(
    path: Path, module: nn.Module, optims: list[torch.optim.Optimizer], average: Average
) -> tuple[int, float]:
    """All as it was saved, if it was. Gives the step to go on with, and the seconds that were spent."""
    if not path.exists():
        return 0, 0.0
    known = torch.load(path, map_location=device(), weights_only=True)
    module.load_state_dict(known["module"])
    for optim, own in zip(optims, known["optims"], strict=True):
        optim.load_state_dict(own)
    average.weights = known["average"]
    return known["step"], known["seconds"]


def _log(folder: Path, **row: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def read_log(folder: Path) -> list[dict]:
    """The rows of log.jsonl, without those that a resumed run wrote again."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return list({row["step"]: row for row in rows}.values())

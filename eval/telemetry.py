"""What else happened during a timing: energy, clocks, temperature and other processes' load.

Plain data, recorded with every repetition. Nothing is read inside the timed region, where it would take time:
counters are read before and after, clocks and temperature right after. A repetition during which heat or the
hardware reduced the clocks is `throttled` and not a valid measurement; running at the power cap is valid, as
it is the GPU's normal speed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psutil
import torch

from fovea.eval import Unavailable, nvml, rapl
from fovea.eval.device import query
from fovea.eval.nvml import Card, card

State = dict[str, Any]
SMI = {
    "clocks.sm": "clock_sm_mhz",
    "clocks.mem": "clock_memory_mhz",
    "power.draw": "power_w",
    "temperature.gpu": "temperature_c",
}


@contextmanager
def watch(device: torch.device | str) -> Iterator[Callable[[], State]]:
    """Yield a function that, called right after the region, returns its state."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # exclude the energy of earlier work
        yield watch_card(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    else:
        yield watch_cpu()


def watch_cpu() -> Callable[[], State]:
    began, energy = (time.perf_counter(), *cpu_seconds()), Meter()

    def so_far() -> State:
        seconds, machine, own = (
            b - a for a, b in zip(began, (time.perf_counter(), *cpu_seconds()), strict=True)
        )
        if seconds <= 0:  # the clock did not advance, so rates are undefined
            return {**energy(), "throttled": None}
        return {
            **energy(),
            "cores_used": own / seconds,
            "cores_used_by_others": max(machine - own, 0.0) / seconds,
            "cores": psutil.cpu_count(),
            "throttled": None,
        }

    return so_far


def cpu_seconds() -> tuple[float, float]:
    """Return CPU seconds used so far by the whole machine, steal time included, and by this process."""
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0) + getattr(machine, "guest", 0.0)
    own = os.times()
    return sum(machine) - idle - getattr(machine, "guest_nice", 0.0), own.user + own.system


class Meter:
    """Joules of the processor from construction to the call."""

    def __init__(self) -> None:
        self.before, self.why = _read_counters()

    def __call__(self) -> State:
        after, why = _read_counters()
        if self.before is None or after is None:
            return {"joules": None, "joules_unavailable": self.why or why}
        return {"joules": rapl.joules(self.before, after), "joules_unavailable": None}


def _read_counters() -> tuple[Any, str | None]:
    try:
        return rapl.counters(), None
    except Unavailable as e:
        return None, str(e)


def watch_card(uuid: str) -> Callable[[], State]:
    try:
        gpu = cached_card(uuid)
    except Unavailable as e:
        return lambda why=str(e): state_by_smi(uuid) | {"joules": None, "joules_unavailable": why}
    joules, thermal_before, throttled_before = gpu.joules(), gpu.thermal_seconds(), gpu.throttle_reasons()

    def so_far() -> State:
        after = gpu.joules()  # read first: the GPU is idle from here on
        now = gpu.throttle_reasons()
        reasons: list[str] | None = None if now is None else sorted({*(throttled_before or []), *now})
        overheated = thermal_before is not None and (gpu.thermal_seconds() or 0.0) > thermal_before
        missing = "this card has no energy counter" if after is None or joules is None else None
        return {
            "joules": None if after is None or joules is None else after - joules,
            "joules_unavailable": missing,
            **gpu.state(),
            "slowed_by": reasons,
            "throttled": throttled(reasons, overheated),
            "other_processes": nvml.count_others(gpu.processes(), os.getpid()),
        }

    return so_far


@lru_cache(maxsize=8)
def cached_card(uuid: str) -> Card:
    return card(uuid)


def throttled(reasons: list[str] | None, overheated: bool = False) -> bool | None:
    if reasons is None:
        return overheated or None
    return overheated or bool(set(reasons) - nvml.STEADY)


def state_by_smi(uuid: str) -> State:
    """Without NVML's bindings: nvidia-smi, one process per query and repetition, without energy."""
    state = query("--query-gpu", list(SMI), uuid)
    active = query("--query-gpu", ["clocks_event_reasons.active"], uuid)
    active = active or query("--query-gpu", ["clocks_throttle_reasons.active"], uuid)  # older drivers
    reasons = nvml.slowed_by(int(str(active[0][0]), 16)) if active and active[0][0] is not None else None
    processes = query("--query-compute-apps", ["pid"], uuid)
    pids = None if processes is None else [int(row[0]) for row in processes if isinstance(row[0], int)]
    return {
        **dict(zip(SMI.values(), state[0] if state else [None] * len(SMI), strict=True)),
        "slowed_by": reasons,
        "throttled": throttled(reasons),
        "other_processes": nvml.count_others(pids, os.getpid()),
    }

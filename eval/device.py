"""The measuring machine and its state, recorded with every block of timings."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

GPU_STATE = {
    "driver_version": "driver",
    "clocks.sm": "clock_sm_mhz",
    "clocks.mem": "clock_memory_mhz",
    "clocks.max.sm": "clock_sm_max_mhz",
    "power.draw": "power_w",
    "power.limit": "power_limit_w",
    "temperature.gpu": "temperature_c",
    "utilization.gpu": "utilization_percent",
}


def describe(device: torch.device | str) -> dict[str, Any]:
    """Return the device's name and state. Unknown values are None."""
    device = torch.device(device)
    return {
        "device": str(device),
        **describe_cpu(),
        **(describe_gpu(device) if device.type == "cuda" else {}),
    }


def describe_cpu() -> dict[str, Any]:
    """Return model, cores, torch's threads, and the one-minute load average of the whole machine."""
    return {
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "threads_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads_torch": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "memory_bytes": psutil.virtual_memory().total,
    }


def cpu_model(path: Path = Path("/proc/cpuinfo")) -> str:
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Return name and memory from torch; clocks, power, temperature and processes from nvidia-smi."""
    properties = torch.cuda.get_device_properties(device)
    card = f"GPU-{properties.uuid}"  # not the index, which CUDA_VISIBLE_DEVICES renumbers
    state = query("--query-gpu", list(GPU_STATE), card)
    slowed = query(
        "--query-gpu", ["clocks_event_reasons.active"], card
    )  # a separate query: old drivers lack this field
    processes = query("--query-compute-apps", ["pid", "process_name", "used_memory"], card)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        **dict.fromkeys(GPU_STATE.values()),
        **(dict(zip(GPU_STATE.values(), state[0], strict=True)) if state else {}),
        "slowed_by": slowed[0][0] if slowed else None,  # bit mask nvmlClocksEventReasons
        "foreign_processes": other_processes(processes, os.getpid()),
    }


def other_processes(processes: list[list[Any]] | None, own: int) -> list[list[Any]] | None:
    """Return other processes on the GPU. In a container, nvidia-smi may hide them or use different pids."""
    return None if processes is None else [p for p in processes if p[0] != own]


def query(what: str, fields: list[str], card: str) -> list[list[Any]] | None:
    """Return the rows of nvidia-smi's answer; None if it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"{what}={','.join(fields)}", "--format=csv,noheader,nounits", f"--id={card}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return [[number(cell) for cell in line.split(", ")] for line in answer.strip().splitlines()]


def number(cell: str) -> int | float | str | None:
    """Parse a cell of nvidia-smi's table; [N/A] and similar are None."""
    if cell.startswith("[") or cell == "N/A":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell

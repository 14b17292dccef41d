"""NVML queries for one NVIDIA GPU: energy, clocks, power, temperature, throttling and other processes.

Uses nvidia-ml-py, NVIDIA's own bindings. nvidia-smi has no energy counter and needs a process per query. What
GPU, driver or container do not report is None.
"""

from collections.abc import Callable
from typing import Any

from fovea.eval import Unavailable

REASONS = {  # bits of nvmlClocksEventReasons
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
# Large models always run at the power cap, so this is the GPU's normal speed, unlike the other reasons.
STEADY = {"power cap"}


def slowed_by(bits: int | None) -> list[str] | None:
    """Return the throttling reasons set in the mask; idling and user-set clocks are not among them."""
    return None if bits is None else [name for bit, name in REASONS.items() if bits & bit]


class Card:
    """One GPU. handle: its handle in the library `nvml`, the module pynvml."""

    def __init__(self, nvml: Any, handle: Any):
        self.nvml, self.handle = nvml, handle

    def query(self, name: str, *arguments: Any) -> Any:
        """Return the result of nvmlDeviceGet`name`, or None on failure."""
        function = getattr(self.nvml, f"nvmlDeviceGet{name}", None)  # old bindings lack new names
        try:
            return None if function is None else function(self.handle, *arguments)
        except self.nvml.NVMLError:
            return None

    def joules(self) -> float | None:
        """Energy of the whole GPU since its driver was loaded; the counter updates every 20 to 100 ms."""
        return multiply(self.query("TotalEnergyConsumption"), 1e-3)

    def throttle_reasons(self) -> list[str] | None:
        bits = self.query("CurrentClocksEventReasons")
        return slowed_by(self.query("CurrentClocksThrottleReasons") if bits is None else bits)

    def thermal_seconds(self) -> float | None:
        """Seconds of thermal throttling since the driver was loaded."""
        status = self.query("ViolationStatus", self.nvml.NVML_PERF_POLICY_THERMAL)
        return None if status is None else status.violationTime * 1e-9

    def state(self) -> dict[str, Any]:
        return {
            "clock_sm_mhz": self.query("ClockInfo", self.nvml.NVML_CLOCK_SM),
            "clock_memory_mhz": self.query("ClockInfo", self.nvml.NVML_CLOCK_MEM),
            "power_w": multiply(self.query("PowerUsage"), 1e-3),
            "temperature_c": self.query("Temperature", self.nvml.NVML_TEMPERATURE_GPU),
        }

    def processes(self) -> list[int] | None:
        running = self.query("ComputeRunningProcesses")
        return None if running is None else [process.pid for process in running]


def multiply(x: int | None, by: float) -> float | None:
    return None if x is None else x * by


def count_others(pids: list[int] | None, own: int) -> int | None:
    """Return how many processes on the GPU are not ours.

    In a container, NVML may report different pids, in which case one of those listed is ours, or none at all,
    in which case the number is unknown.
    """
    if not pids:
        return None
    return len(pids) - 1 if own not in pids else sum(pid != own for pid in pids)


def card(uuid: str, load: Callable[[], Any] | None = None) -> Card:
    """Find the GPU by uuid, since CUDA_VISIBLE_DEVICES renumbers indices. Raises Unavailable without NVML."""
    try:
        nvml = (load or bindings)()
    except ImportError:
        raise Unavailable(
            "nvidia-ml-py is not installed", "pip install nvidia-ml-py, or .[metrics]"
        ) from None
    try:
        nvml.nvmlInit()
        return Card(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError as error:
        raise Unavailable(f"NVML does not answer for {uuid} ({error})", "check the driver") from error


def bindings() -> Any:
    import pynvml

    return pynvml

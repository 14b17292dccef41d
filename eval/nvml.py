"""One NVIDIA card through NVML: energy, clocks, power, temperature, why it is slowed, who else is on it.

Through nvidia-ml-py, NVIDIA's own bindings, and not through nvidia-smi, which has no energy counter and takes
a process of its own per question. What a card, a driver or a container does not tell is None.
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
# Large models run at the cap of their card's power all the time: that is its speed. The others are not.
STEADY = {"power cap"}


def slowed_by(bits: int | None) -> list[str] | None:
    """The reasons that are set, in words; idling and clocks that a user has set are none."""
    return None if bits is None else [name for bit, name in REASONS.items() if bits & bit]


class Card:
    """handle: of the library `nvml`, which is the module pynvml."""

    def __init__(self, nvml: Any, handle: Any):
        self.nvml, self.handle = nvml, handle

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer of nvmlDeviceGet`name`, or None."""
        function = getattr(self.nvml, f"nvmlDeviceGet{name}", None)  # new names are missing in old bindings
        try:
            return None if function is None else function(self.handle, *arguments)
        except self.nvml.NVMLError:
            return None

    def joules(self) -> float | None:
        """Of the whole card since its driver was loaded; the counter steps every 20 to 100 ms."""
        return scaled(self.ask("TotalEnergyConsumption"), 1e-3)

    def slowed(self) -> list[str] | None:
        bits = self.ask("CurrentClocksEventReasons")
        return slowed_by(self.ask("CurrentClocksThrottleReasons") if bits is None else bits)

    def too_hot(self) -> float | None:
        """Seconds, since the driver was loaded, in which heat held the clocks down."""
        status = self.ask("ViolationStatus", self.nvml.NVML_PERF_POLICY_THERMAL)
        return None if status is None else status.violationTime * 1e-9

    def state(self) -> dict[str, Any]:
        return {
            "clock_sm_mhz": self.ask("ClockInfo", self.nvml.NVML_CLOCK_SM),
            "clock_memory_mhz": self.ask("ClockInfo", self.nvml.NVML_CLOCK_MEM),
            "power_w": scaled(self.ask("PowerUsage"), 1e-3),
            "temperature_c": self.ask("Temperature", self.nvml.NVML_TEMPERATURE_GPU),
        }

    def processes(self) -> list[int] | None:
        found = self.ask("ComputeRunningProcesses")
        return None if found is None else [process.pid for process in found]


def scaled(x: int | None, by: float) -> float | None:
    return None if x is None else x * by


def others(pids: list[int] | None, own: int) -> int | None:
    """How many of the processes on the card are not ours. In a container NVML may number ours otherwise, or
    list none: then one of those listed is ours, or nothing is known."""
    if not pids:
        return None
    return len(pids) - 1 if own not in pids else sum(pid != own for pid in pids)


def card(uuid: str, load: Callable[[], Any] | None = None) -> Card:
    """By its uuid, since CUDA_VISIBLE_DEVICES renumbers indices. Raises Unavailable without NVML."""
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

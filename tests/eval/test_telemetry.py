"""Energy, clocks and company: NVML and nvidia-smi by what they were recorded to say, RAPL by files."""

import json
from types import SimpleNamespace

import pytest

from fovea.eval import Unavailable, device, rapl, telemetry
from fovea.eval.nvml import Card, card, count_others, slowed_by


class NVMLError(Exception):
    pass


def library(energy=(5_000_000, 5_350_000), bits=0x4, hot=(0, 0), pids=(7,), missing=()):
    """pynvml, as far as it is asked, of an H200: each call of a counter gives its next reading."""
    readings = {"energy": iter(energy), "hot": iter(hot)}

    def refuse(*_):
        raise NVMLError("Not Supported")

    made = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: next(readings["energy"]),
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: bits,
        "nvmlDeviceGetViolationStatus": lambda _, policy: SimpleNamespace(
            violationTime=next(readings["hot"])
        ),
        "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1980, 2: 3201}[kind],
        "nvmlDeviceGetPowerUsage": lambda _: 689_520,
        "nvmlDeviceGetTemperature": lambda _, sensor: 61,
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [SimpleNamespace(pid=pid) for pid in pids],
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_PERF_POLICY_THERMAL": 1,
    }
    return SimpleNamespace(**made | dict.fromkeys(missing, refuse))


def watched(monkeypatch, made):
    monkeypatch.setattr(telemetry, "cached_card", lambda uuid: Card(made, uuid))
    monkeypatch.setattr(telemetry.os, "getpid", lambda: 7)
    return telemetry.watch_card("GPU-1")()


def test_a_card_under_load(monkeypatch):
    state = watched(monkeypatch, library())
    assert state["joules"] == pytest.approx(350)
    assert (state["clock_sm_mhz"], state["clock_memory_mhz"], state["temperature_c"]) == (1980, 3201, 61)
    assert state["power_w"] == pytest.approx(689.52)
    assert state["slowed_by"] == ["power cap"]
    assert state["throttled"] is False  # at its cap is how fast the card is
    assert state["other_processes"] == 0
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize(
    ("made", "throttled"),
    [
        (library(bits=0), False),
        (library(bits=0x1), False),
        (library(bits=0x24), True),
        (library(bits=0x8), True),
        (library(bits=0x80), True),
        (library(hot=(10**9, 10**9 + 5000)), True),
        (library(bits=None), None),
    ],
)
def test_heat_and_hardware_throttle(monkeypatch, made, throttled):
    assert watched(monkeypatch, made)["throttled"] is throttled


def test_what_a_card_does_not_tell_is_none(monkeypatch):
    missing = [f"nvmlDeviceGet{name}" for name in ("TotalEnergyConsumption", "ViolationStatus", "PowerUsage")]
    state = watched(monkeypatch, library(missing=missing))
    assert state["joules"] is state["power_w"] is None
    assert "no energy counter" in state["joules_unavailable"]
    assert state["throttled"] is False


def test_reasons_by_their_old_name():
    made = library(missing=["nvmlDeviceGetCurrentClocksEventReasons"])
    made.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: 0x40
    assert Card(made, "x").throttle_reasons() == ["hardware thermal slowdown"]
    del made.nvmlDeviceGetCurrentClocksEventReasons
    assert Card(made, "x").throttle_reasons() == ["hardware thermal slowdown"]
    assert slowed_by(None) is None


def test_others_on_the_card():
    assert count_others([7, 8, 9], own=7) == 2
    assert count_others([4711], own=7) == 0  # ours, as it is numbered outside of the container
    assert count_others([], own=7) is None


def test_without_nvml_energy_has_a_reason():
    def none():
        raise ImportError

    def broken():
        made = library()
        made.nvmlInit = lambda: (_ for _ in ()).throw(NVMLError("Driver Not Loaded"))
        return made

    with pytest.raises(Unavailable, match="nvidia-ml-py is not installed"):
        card("GPU-1", none)
    with pytest.raises(Unavailable, match="Driver Not Loaded"):
        card("GPU-1", broken)
    assert card("GPU-1", library).handle == "GPU-1"


SMI = {  # as an H200 with driver 570 answers
    "clocks.sm,clocks.mem,power.draw,temperature.gpu": [[1980, 3201, 689.52, 61]],
    "clocks_event_reasons.active": [["0x0000000000000020"]],
    "pid": [[7], [4711]],
}


def test_nvidia_smi_where_there_are_no_bindings(monkeypatch):
    monkeypatch.setattr(telemetry, "query", lambda what, fields, card: SMI.get(",".join(fields)))
    monkeypatch.setattr(telemetry.os, "getpid", lambda: 7)

    def missing(uuid):
        raise Unavailable("nvidia-ml-py is not installed", "install it")

    monkeypatch.setattr(telemetry, "cached_card", missing)
    state = telemetry.watch_card("GPU-1")()
    assert (state["clock_sm_mhz"], state["power_w"]) == (1980, 689.52)
    assert state["slowed_by"] == ["thermal slowdown"]
    assert state["throttled"] is True
    assert state["other_processes"] == 1
    assert state["joules"] is None
    assert "nvidia-ml-py" in state["joules_unavailable"]


def test_a_silent_nvidia_smi_tells_nothing(monkeypatch):
    monkeypatch.setattr(telemetry, "query", lambda *_: None)
    state = telemetry.state_by_smi("GPU-1")
    assert set(state.values()) == {None}
    assert device.number("[N/A]") is device.number("N/A") is None


def package(folder, name, energy, turn=10_000_000):
    (folder / name).mkdir(parents=True)
    (folder / name / "energy_uj").write_text(str(energy))
    (folder / name / "max_energy_range_uj").write_text(str(turn))


def test_rapl_adds_packages_and_turns_over(tmp_path):
    package(tmp_path, "intel-rapl:0", 9_000_000)
    package(tmp_path, "intel-rapl:1", 100)
    package(tmp_path, "intel-rapl:0:0", 5)  # the cores of a package are in it already
    before = rapl.counters(tmp_path)
    assert len(before) == 2
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("999999")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1000100")
    assert rapl.joules(before, rapl.counters(tmp_path)) == pytest.approx(3.0)


def test_rapl_that_cannot_be_read_has_a_reason(tmp_path):
    with pytest.raises(Unavailable, match="no energy counter"):
        rapl.counters(tmp_path)
    package(tmp_path, "intel-rapl:0", "denied")
    with pytest.raises(Unavailable, match="cannot be read"):
        rapl.counters(tmp_path)


def test_a_processor_says_who_used_it():
    with telemetry.watch("cpu") as so_far:
        sum(i * i for i in range(300_000))
        state = so_far()
    assert state["cores_used"] > 0.05
    assert state["cores_used_by_others"] >= 0
    assert (state["joules"] is None) == (state["joules_unavailable"] is not None)
    assert json.loads(json.dumps(state)) == state

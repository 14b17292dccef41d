"""What the machine says of itself, and nvidia-smi's table where there is no nvidia-smi."""

import json
import subprocess

from fovea.eval import device


def test_a_cpu_describes_itself_in_plain_data():
    about = device.describe("cpu")
    assert about["device"] == "cpu"
    assert about["cpu"]
    assert about["threads_torch"] >= 1
    assert about["load_average"] >= 0
    assert json.loads(json.dumps(about)) == about


def test_cpu_model_is_read_where_linux_writes_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert device.cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert device.cpu_model(tmp_path / "none")


def test_nvidia_smi_is_read_as_numbers(monkeypatch):
    asked = []

    def answer(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="580.95, 1980, [N/A], 68.51\n", stderr="")

    monkeypatch.setattr(device.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(device.subprocess, "run", answer)
    assert device.query("--query-gpu", ["a", "b", "c", "d"], "GPU-1") == [[580.95, 1980, None, 68.51]]
    assert asked == [
        ["/bin/nvidia-smi", "--query-gpu=a,b,c,d", "--format=csv,noheader,nounits", "--id=GPU-1"]
    ]


def test_a_silent_or_failing_nvidia_smi_is_none(monkeypatch):
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    assert device.query("--query-gpu", ["name"], "GPU-1") is None

    def fails(command, **_):
        raise subprocess.CalledProcessError(9, command)

    monkeypatch.setattr(device.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(device.subprocess, "run", fails)
    assert device.query("--query-gpu", ["name"], "GPU-1") is None


def test_own_process_is_not_foreign():
    assert device.other_processes([[7, "python", 100], [8, "game", 900]], own=7) == [[8, "game", 900]]
    assert device.other_processes(None, own=7) is None

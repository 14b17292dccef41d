"""A study by a Ray cluster: the same as by one process, though a worker is killed in the middle."""

import json
import os
import signal
import threading
import time

import psutil

import run
from fovea.study.store import Store
from tests.study.run.test_share import recorded
from tests.study.test_faults import same

RAY = ["launcher=ray", "launcher.workers=2", "launcher.cpus=0.5"]


def kill_one(study, killed, listening):
    """A worker that has made some images of what it has on lease; notes who listens to the world by then."""
    while not killed:
        for file in study.glob(".workers/*.worker"):
            about = json.loads(file.read_text())
            made = [*study.glob(f"cells/*/records/{about['session']}.jsonl")]
            leases = [lease for lease in study.glob(".workers/*.lease") if os.readlink(lease) == file.stem]
            if about["process"] != os.getpid() and leases and any("batch" in f.read_text() for f in made):
                listening.update(addresses())
                os.kill(about["process"], signal.SIGKILL)
                killed.append(about["process"])
                return
        time.sleep(0.05)


def addresses() -> set[str]:
    """At which Ray's processes below this one listen."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        for at in process.net_connections("tcp"):
            if at.status == psutil.CONN_LISTEN:
                found.add(at.laddr.ip)
    return found


def test_one_of_two_workers_is_killed_and_the_study_is_as_by_one_process(shared, alone, tmp_path, capfd):
    study, killed, listening = tmp_path / "ray" / "x", [], set()
    threading.Thread(target=kill_one, args=(study, killed, listening), daemon=True).start()
    assert run.main([*shared, *RAY, f"results={study.parent}"]) == 0
    assert len(killed) == 1
    assert "a worker was lost" in capfd.readouterr().err
    assert set(recorded(Store(study)).values()) == {1}
    assert not list(study.glob(".workers/*"))
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    same(study, alone)

"""A study by jobs, of submitit's own and of a real Slurm of one node: the same as by one process."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

import run
from fovea.study.run import share, slurm
from fovea.study.run.events import Made
from fovea.study.store import Store
from tests.study.run.test_share import recorded
from tests.study.test_faults import same

JOBS = ["launcher=slurm", "launcher.jobs=2", "launcher.gpus=0", "launcher.cpus=1"]
NODE = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def until(what) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of this machine alone, from Debian's packages slurm-wlm and munge."""
    assert shutil.which("slurmctld"), "apt-get install slurm-wlm munge"
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    host, ports = socket.gethostname().split(".")[0], [free_port(), free_port()]
    (folder / "slurm.conf").write_text(
        NODE.format(folder=folder, host=host, ports=ports, cores=os.cpu_count())
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        if not told("munge", "-n"):
            for place in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
                os.makedirs(place, exist_ok=True)
                shutil.chown(place, "munge", "munge")
            subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True, timeout=60)
        logs = [open(folder / f"{name}.log", "w") for name in ("slurmctld", "slurmd")]  # noqa: SIM115
        daemons = [
            subprocess.Popen([name, "-D"], stdout=log, stderr=log)
            for name, log in zip(("slurmctld", "slurmd"), logs, strict=True)
        ]
        try:
            until(lambda: "idle" in told("sinfo", "-h", "-o", "%T"))
            yield
        finally:
            for daemon, log in zip(daemons, logs, strict=True):
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(30)
                log.close()


def made_by_jobs(shared, alone, results, *more) -> None:
    assert run.main([*shared, *JOBS, *more, f"results={results}"]) == 0
    assert set(recorded(Store(results / "x")).values()) == {1}
    assert not list((results / "x").glob(".workers/*"))
    same(results / "x", alone)


def test_jobs_of_submitits_own(shared, alone, tmp_path, capfd):
    made_by_jobs(shared, alone, tmp_path, "launcher.cluster=local")
    assert "2 jobs" in capfd.readouterr().err


class Interrupted(slurm.Task):
    """A job that is queued again, the first of the array that has made an image."""

    def __call__(self):
        work, mark = share.share, self.store.folder.parent / "queued"

        def until_interrupted(*given):
            for event in work(*given):
                yield event
                if isinstance(event, Made) and not mark.exists():
                    mark.write_text(os.environ["SLURM_JOB_ID"])
                    told("scontrol", "requeue", mark.read_text())
                    time.sleep(600)  # it is killed before

        share.share = until_interrupted
        super().__call__()


def test_a_job_of_a_real_slurm_is_cancelled_in_the_middle_and_queued_again(
    shared, alone, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(slurm, "Task", Interrupted)
    made_by_jobs(shared, alone, tmp_path)
    assert "Restarts=1" in told("scontrol", "show", "job", (tmp_path / "queued").read_text())

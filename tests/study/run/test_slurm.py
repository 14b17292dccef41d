"""A study by jobs, of submitit's own and of a real Slurm of one node: the same as by one process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import run
from fovea.study.config.groups import ROOT
from fovea.study.run import execute, share, slurm, slurm_jobs
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
    jobs = [word for word in JOBS if word.split("=")[0] not in {other.split("=")[0] for other in more}]
    assert run.main([*shared, *jobs, *more, f"results={results}"]) == 0
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


class Preempted(slurm.Task):
    """A job that is told to make room in the middle of a batch, once."""

    def __call__(self):
        work, mark = execute.generate_batch, self.store.folder.parent / "preempted"

        def interrupted(*given):
            if recorded(self.store) and not mark.exists():
                mark.touch()
                signal.raise_signal(signal.SIGUSR2)
            return work(*given)

        execute.generate_batch = interrupted
        super().__call__()


def test_a_job_that_is_preempted_goes_on_and_no_cell_has_failed(shared, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "Task", Preempted)
    made_by_jobs(shared, alone, tmp_path, "launcher.cluster=local", "launcher.jobs=1")
    assert (tmp_path / "preempted").exists()
    store = Store(tmp_path / "x")
    assert not any(store.samples(cell.name).failures for cell in store.folder.glob("cells/*"))
    assert "Requeued job" in "".join(log.read_text() for log in (tmp_path / ".jobs").glob("x/*_log.out"))


def commands_in(folder: Path) -> list[str]:
    """Command lines of the processes of submitit's jobs whose files are in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(process.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if "submitit" in line and str(folder) in line]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
@pytest.mark.parametrize("ignored", [True, False])
def test_jobs_of_this_machine_end_with_the_command_that_started_them(shared, tmp_path, ignored):
    """A script's background processes ignore SIGINT, and so do all that they start."""
    command = [sys.executable, "-m", "fovea", *shared, *JOBS, "launcher.cluster=local", f"results={tmp_path}"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        started = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: any("loading" in log.read_text() for log in (tmp_path / ".jobs").glob("x/*_log.err")))
    assert len(commands_in(tmp_path / ".jobs")) == 4  # two jobs, each with the process that watches it
    started.send_signal(signal.SIGTERM)
    _, told = started.communicate(timeout=60)
    assert started.returncode == 143
    assert "continue with the same command" in told
    until(lambda: not commands_in(tmp_path / ".jobs"))
    assert not list((tmp_path / "x").glob(".workers/*.lease"))


def test_a_signal_while_jobs_are_submitted_is_handled_when_they_are_known():
    done: list[str] = []

    def stop(*_):
        done.append("stopped")
        raise KeyboardInterrupt

    def signalled(times: int) -> None:
        with slurm.postponed():
            for _ in range(times):
                signal.raise_signal(signal.SIGTERM)
            done.append("submitted")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            signalled(1)
        assert done == ["submitted", "stopped"]
        assert signal.getsignal(signal.SIGTERM) is stop
        with pytest.raises(KeyboardInterrupt):
            signalled(2)  # the second is not made to wait
        assert done[2] == "stopped"
        assert done.count("submitted") == 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_job_that_dies_is_told_in_a_line_and_leaves_its_cells_incomplete(
    shared, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(slurm, "Task", Killed)
    assert run.main([*shared, *JOBS, "launcher.cluster=local", f"results={tmp_path}"]) == 3
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("job ")]
    assert len(told) == 2
    assert all("ended without a result" in line and "_log.err" in line for line in told)


class Killed(slurm.Task):
    """A job that the system kills for its memory."""

    def __call__(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Raising(slurm.Task):
    def __call__(self):
        raise ValueError("two lines\n  of text")


def test_a_job_that_raises_is_told_by_its_exception(shared, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(slurm, "Task", Raising)
    assert run.main([*shared, *JOBS, "launcher.cluster=local", f"results={tmp_path}"]) == 3
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("job ")]
    assert len(told) == 2
    assert all("ValueError: two lines of text; its log: " in line for line in told)


def test_without_slurm_it_is_refused(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.main([*shared, *JOBS, f"results={tmp_path}"]) == 2
    assert "launcher.cluster=local" in capsys.readouterr().err


def test_what_sbatch_does_not_take_is_refused_in_its_words(shared, cluster, tmp_path, capsys):
    option = "launcher.options={partition: nowhere}"
    assert run.main([*shared, *JOBS, option, f"results={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "invalid partition specified: nowhere" in told
    assert "Traceback" not in told


class Hanging(slurm.Planning):
    def __call__(self):
        time.sleep(600)


def queued() -> list[str]:
    return told("squeue", "-h", "-o", "%i").split()


def test_a_job_that_plans_and_is_cancelled_refuses_the_study(shared, cluster, tmp_path, monkeypatch, capsys):
    """This cluster has no sacct: only squeue tells that a job without a result is over."""
    monkeypatch.setattr(slurm, "Planning", Hanging)
    monkeypatch.setattr(slurm_jobs, "ASK", 1.0)
    monkeypatch.setattr(slurm_jobs, "VISIBLE", 0.0)

    def cancel():
        until(queued)
        told("scancel", *queued())

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    assert run.main([*shared, *JOBS, f"results={tmp_path}"]) == 2
    cancelling.join()
    assert "plans the study" in capsys.readouterr().err


def test_a_planning_job_is_cancelled_with_the_command(shared, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "Planning", Hanging)

    def stop():
        until(queued)
        signal.raise_signal(signal.SIGINT)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert run.main([*shared, *JOBS, f"results={tmp_path}"]) == 130
    stopping.join()
    until(lambda: not queued())


class Long(slurm.Task):
    def __call__(self):
        (self.store.folder.parent / f"{os.environ['SLURM_JOB_ID']}.started").touch()
        time.sleep(600)


def test_jobs_that_are_cancelled_elsewhere_end_the_wait_for_them(
    shared, cluster, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(slurm, "Task", Long)
    monkeypatch.setattr(slurm_jobs, "ASK", 1.0)
    monkeypatch.setattr(slurm_jobs, "VISIBLE", 0.0)

    def cancel():
        until(lambda: list(tmp_path.glob("*.started")))
        told("scancel", f"--user={os.getuid()}")

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    assert run.main([*shared, *JOBS, f"results={tmp_path}"]) == 3
    cancelling.join()
    assert capfd.readouterr().err.count("ended without a result") == 2

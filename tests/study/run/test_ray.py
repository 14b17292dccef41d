"""A study by a Ray cluster: the same as by one process, though a worker is killed in the middle, or the
process that started them is stopped."""

import os
import signal
import socket
import time
from pathlib import Path
from random import Random

import psutil
import pytest

import run
from fovea.study.run import execute, ray
from fovea.study.run.events import Made
from fovea.study.store import Store
from tests.study import faulty
from tests.study.run.test_share import recorded
from tests.study.test_faults import same

RAY = ["launcher=ray", "launcher.workers=2", "launcher.cpus=0.5"]
IMAGES = 16  # of the study


def pytest_generate_tests(metafunc):
    count = max(1, metafunc.config.getoption("--moments") // 5)
    if "number" in metafunc.fixturenames:
        drawn = [(tuple(faulty.CODES)[i % 3], Random(f"Ray {i}").randrange(IMAGES)) for i in range(count)]
        names = [f"{number.name} after {images}" for number, images in drawn]
        metafunc.parametrize(("number", "images"), drawn, ids=names)
    elif "images" in metafunc.fixturenames:
        metafunc.parametrize("images", [Random(f"worker {i}").randint(1, IMAGES // 2) for i in range(count)])


class Mortal(ray.WorkerActor):
    """The first worker kills itself before it has planned; of those that make the study, the first that has
    made so many images: one of two makes half of them. What is to come lies beside the study, as this is
    another process."""

    def plan(self, arguments):
        mark = Path(arguments[-1].removeprefix("results=")) / "plans"
        if mark.exists():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().plan(arguments)

    def make(self, plan, store, session):
        made, mark = 0, store.folder.parent / "dies"
        for event in super().make(plan, store, session):
            yield event
            made += event.images if isinstance(event, Made) else 0
            if mark.exists() and made >= int(mark.read_text()):
                mark.rename(mark.with_name("died"))
                os.kill(os.getpid(), signal.SIGKILL)


def addresses() -> set[str]:
    """At which Ray's processes below this one listen."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        for at in process.net_connections("tcp"):
            if at.status == psutil.CONN_LISTEN:
                found.add(at.laddr.ip)
    return found


def test_one_of_two_workers_is_killed_and_the_study_is_as_by_one_process(
    shared, alone, tmp_path, capfd, monkeypatch, images
):
    study, listening, made = tmp_path / "x", set(), ray.Cluster.make

    def listened(*given):
        made(*given)
        listening.update(addresses())

    monkeypatch.setattr(ray, "WorkerActor", Mortal)
    monkeypatch.setattr(ray.Cluster, "make", listened)
    (tmp_path / "plans").touch()
    (tmp_path / "dies").write_text(f"{images}")
    assert run.main([*shared, *RAY, f"results={tmp_path}"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"died", "x"}
    assert "a worker was lost" in capfd.readouterr().err
    assert set(recorded(Store(study)).values()) == {1}
    assert not list(study.glob(".workers/*"))
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    same(study, alone)


class Terminated(ray.WorkerActor):
    """A worker whose node is stopped in the middle of a batch, once."""

    def make(self, plan, store, session):
        work, mark = execute.generate_batch, store.folder.parent / "terminated"

        def interrupted(*given):
            if recorded(store) and not mark.exists():
                mark.touch()
                signal.raise_signal(signal.SIGTERM)
            return work(*given)

        execute.generate_batch = interrupted
        yield from super().make(plan, store, session)


def test_a_worker_that_is_terminated_fails_no_cell(shared, alone, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(ray, "WorkerActor", Terminated)
    one = [*shared, *RAY, "launcher.workers=1", f"results={tmp_path}"]
    one.remove("launcher.workers=2")
    assert run.main(one) == 0
    assert (tmp_path / "terminated").exists()
    assert "a worker was lost" in capfd.readouterr().err
    store = Store(tmp_path / "x")
    assert not any(store.samples(cell.name).failures for cell in store.folder.glob("cells/*"))
    assert set(recorded(store).values()) == {1}
    same(tmp_path / "x", alone)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("launcher.gpus=1000", "more than any node of the cluster has"),
        ("launcher.cpus=10000", "more than any node of the cluster has"),
        ("launcher.address=auto", "launcher.address=auto: Could not find any running Ray instance"),
    ],
)
def test_what_no_cluster_can_give_is_refused(shared, tmp_path, capsys, option, message):
    assert run.main([*shared, *RAY[:2], option, f"results={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["address", "RAY_ADDRESS"])
def test_a_head_node_that_is_not_there_is_refused_before_ray_tries(
    shared, tmp_path, capsys, monkeypatch, named
):
    """Ray would try for two minutes."""
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", place if named == "RAY_ADDRESS" else "")
        address = "auto" if named == "RAY_ADDRESS" else place
        monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray tries"))
        assert run.main([*shared, *RAY, f"launcher.address={address}", f"results={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert f"launcher.address={address}" in told
    assert place in told
    assert "Connection refused" in told
    assert "ray start --head" in told


@pytest.mark.parametrize("address", ["here", "local", "ray://127.0.0.1:1001", "host:", ":6379", "host:99999"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="HOST:PORT"):
        ray.Ray(address=address)


def test_addresses():
    for address in ("127.0.0.1:6379", "[::1]:6379", "head.cluster:1"):
        assert ray.Ray(address=address).address == address


@pytest.mark.faults
def test_who_started_the_workers_is_stopped_and_another_goes_on(shared, alone, tmp_path, number, images):
    """After some images. Workers that outlive it for a while share the work with who comes next."""
    study, log = tmp_path / "x", tmp_path / "log"
    process = faulty.running([*shared, *RAY, f"results={tmp_path}"], log)
    while process.exitcode is None and (not joined(study) or len(recorded(Store(study))) < images):
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert faulty.ended(process) in faulty.CODES[number]
    assert faulty.study([*shared, f"results={tmp_path}"], log) == 0
    assert "Traceback" not in log.read_text()
    assert set(recorded(Store(study)).values()) == {1}
    same(study, alone)


def joined(study) -> bool:
    """Whether anybody but who started them is at work."""
    return len([*study.glob(".workers/*.worker")]) > 1

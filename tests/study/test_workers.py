"""Several processes on one study: one lease, one owner, whoever is killed, whatever the clocks say."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from fovea.study import workers
from fovea.study.config.errors import Refused
from fovea.study.files import Unwritable
from fovea.study.presence import PATIENCE, at_work, boot_id
from fovea.study.workers import joined


def alone():
    """Nothing is to be cleared."""


@contextmanager
def elsewhere(study, plan, lease="x"):
    """Another process that has joined and has a lease. Gives the process."""
    code = (
        "import pathlib, sys, time\nfrom fovea.study.workers import joined\n"
        f"with joined(pathlib.Path({str(study)!r}), {plan!r}, lambda: None) as worker:\n"
        f"    print(worker.take({lease!r}), flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def left_over(study):
    return [file.name for file in study.glob(".workers/*")]


def test_of_one_plan_any_number_and_of_another_none(tmp_path):
    cleared = []
    with joined(tmp_path, "plan", lambda: cleared.append(1)) as first:
        with joined(tmp_path, "plan", lambda: cleared.append(2)) as second:
            assert [known.id for known in second.others()] == [first.id]
        for other in ("another", None):
            with pytest.raises(Refused, match=f"process {os.getpid()} on .*name="):
                joined(tmp_path, other, alone).__enter__()
    with joined(tmp_path, None, lambda: cleared.append(3)), pytest.raises(Refused, match="works on this"):
        joined(tmp_path, None, alone).__enter__()
    assert cleared == [1, 3]
    assert not (tmp_path / ".workers").exists()


def test_of_many_at_once_one_is_let_in_alone_and_one_has_a_lease(tmp_path):
    ready, had = threading.Barrier(8), []

    def come(i):
        with ExitStack() as held:
            ready.wait()
            try:
                held.enter_context(joined(tmp_path, None, alone))
            except Refused:
                return False
            finally:
                ready.wait()
            return True

    def work(i):
        with joined(tmp_path, "plan", alone) as worker:
            ready.wait()
            for name in map(str, range(20)):
                if worker.take(name):
                    had.append(name)
            ready.wait()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(come, range(8))).count(True) == 1
        list(pool.map(work, range(8)))
    assert sorted(had, key=int) == [str(i) for i in range(20)]
    assert not (tmp_path / ".workers").exists()


def test_who_is_killed_has_nothing_at_once(tmp_path):
    with elsewhere(tmp_path, "plan") as other, joined(tmp_path, "plan", alone) as worker:
        assert not worker.take("x")
        (known,) = worker.others()
        assert (known.process, known.leases) == (other.pid, ("x",))
        other.send_signal(signal.SIGSTOP)  # one that is slow is not gone
        worker.clear()
        assert not worker.take("x")
        other.kill()
        other.wait()
        assert [known.process for known in at_work(tmp_path)] == [os.getpid()]
        worker.clear()
        assert worker.take("x")
    with elsewhere(tmp_path, None) as other:
        other.kill()
        other.wait()
        with joined(tmp_path, None, alone):
            assert left_over(tmp_path)
    assert left_over(tmp_path) == []


def foreign(study, plan, **about):
    """A worker of another machine, with a lease."""
    folder = study / ".workers"
    folder.mkdir(exist_ok=True)
    known = {"host": "far", "process": 7, "plan": plan, "kernel": "another", "locked": True}
    (folder / "far.worker").write_text(json.dumps(known | about))
    (folder / "x.lease").symlink_to("far")
    return folder / "far.worker"


@pytest.mark.parametrize("about", [{}, {"kernel": boot_id(), "locked": False}])
def test_another_machines_is_gone_when_it_was_silent_for_long_enough(tmp_path, monkeypatch, about):
    """By the steady clock of who waits: stamps may be of any year. So it is where there are no locks."""
    now = [1000.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    with joined(tmp_path, "plan", alone) as worker:
        file = foreign(tmp_path, "plan", **about)
        for year in (0, 2**31, 5):
            os.utime(file, (year, year))
            worker.clear()
            now[0] += PATIENCE - 1
            worker.clear()
            assert not worker.take("x")
        assert str(worker.others()[0]) == "process 7 on far"
        now[0] += 2
        worker.clear()
        assert worker.take("x")
        assert worker.others() == []


@pytest.mark.parametrize("beats", [True, False])
def test_whether_another_machines_lives_is_waited_for_where_it_makes_something_else(
    tmp_path, monkeypatch, beats
):
    file, now = foreign(tmp_path, "another"), [1000.0]

    def sleep(seconds):
        now[0] += seconds
        if beats and now[0] > 1004:
            os.utime(file, (now[0], now[0]))

    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(workers.time, "sleep", sleep)
    if beats:
        with pytest.raises(Refused, match="process 7 on far"):
            joined(tmp_path, "plan", alone).__enter__()
    else:
        with joined(tmp_path, "plan", alone) as worker:
            assert worker.take("x")
    assert 1004 < now[0] < 1000 + PATIENCE + 2


def test_without_locks_work_is_shared_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with joined(tmp_path, "plan", alone) as one, joined(tmp_path, "plan", alone) as two:
        assert "no locks (no locks available): a process that is killed" in one.notes[0]
        assert one.take("x")
        assert not two.take("x")
        two.clear()
        assert not two.take("x")
        one.release("x")
        assert two.take("x")


def test_who_is_taken_for_gone_counts_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "BEAT", 0.01)
    with joined(tmp_path, "plan", alone) as slow, joined(tmp_path, "plan", alone) as other:
        assert slow.take("x")
        slow.check()
        other.remove_lost(slow.id)
        assert other.take("x")
        deadline = time.monotonic() + 60
        while not slow._lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(Unwritable, match="others took its work over"):
            slow.check()
        slow.release("x")
        assert not slow.take("x")


@pytest.mark.parametrize("noticed", ["by the next shard", "within a shard"])
def test_a_folder_that_is_moved_while_it_is_worked_on_is_told(tmp_path, monkeypatch, noticed):
    """Whatever is written meanwhile makes a new folder in its place."""
    monkeypatch.setattr(workers, "BEAT", 0.01)
    study, moved = tmp_path / "x", tmp_path / "y"
    with joined(study, "plan", alone) as worker:
        assert worker.take("x")
        study.rename(moved)
        (study / "cells").mkdir(parents=True)
        deadline = time.monotonic() + 60
        while noticed == "within a shard" and not worker._lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(Unwritable, match=f"{study} was moved, renamed or deleted .* move it back"):
            worker.take("y") if noticed == "by the next shard" else worker.check()
    study.rename(tmp_path / "z")
    moved.rename(study)
    with joined(study, "plan", alone) as worker:
        assert worker.take("x")


def test_who_is_killed_while_it_clears_after_another_is_cleared_after(tmp_path):
    foreign(tmp_path, "plan").rename(tmp_path / ".workers" / "far~gone")
    with joined(tmp_path, "plan", alone) as worker:
        assert worker.take("x")
    assert left_over(tmp_path) == []


def test_a_file_of_nobody_stops_nobody(tmp_path):
    (tmp_path / ".workers").mkdir()
    (tmp_path / ".workers" / "z.worker").write_text("{")
    with joined(tmp_path, None, alone):
        assert len(at_work(tmp_path)) == 1


def test_where_no_link_can_be_made_the_error_says_so(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", refused)
    with pytest.raises(Unwritable, match=r"door\.lease cannot be written: operation not permitted"):
        joined(tmp_path, None, alone).__enter__()
    assert left_over(tmp_path) == []

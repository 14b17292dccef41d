"""A study that is being made says how far it is, by whom, and how long the rest takes."""

import os

import run
from fovea.study.files import read_json, write_json
from fovea.study.run.events import Failed, Remaining, WarmedUp
from fovea.study.run.progress import Progress, active_workers, count_busy, seconds_left
from fovea.study.store import Store
from tests.study.commands.test_show import EMBEDDED
from tests.study.made_up import add, image


def test_show_tells_what_is_made_by_whom_and_the_time_left(tmp_path, capsys):
    store, known = Store(tmp_path / "x"), read_json(EMBEDDED / "provenance.json")
    assert known is not None
    cells, keys = list(known["cells"]), list(known["samples"])
    total = len(cells) * len(keys)
    with store.at_work("plan") as worker:
        assert worker.take("a shard")
        write_json(store.folder / "runs" / f"{store.session}.json", known | {"session": store.session})
        assert run.main([f"show={store.folder}"]) == 0
        assert f"0 of {total} images are made, time unknown" in capsys.readouterr().out
        add(store, cells[0], {keys[0]: image()}, seconds=2.0)
        assert run.main([f"show={store.folder}"]) == 0
        out = capsys.readouterr().out
        assert f"1 of {total} images are made, about " in out
        assert f"at work: process {os.getpid()} on" in out
        assert "1 images made, 1 shards on lease" in out
        worker.release("a shard")
        assert worker.take("report")
        assert run.main([f"show={store.folder}"]) == 0
        assert "1 images made, writes the report" in capsys.readouterr().out
    assert run.main([f"show={store.folder}"]) == 0
    assert "at work" not in capsys.readouterr().out


def test_the_time_left_is_shared_by_those_who_have_work(tmp_path):
    store = Store(tmp_path)
    with store.at_work("plan") as one, Store(tmp_path).at_work("plan") as two:
        assert count_busy(active_workers(store, [])) == 1
        assert one.take("x")
        assert count_busy(active_workers(store, [])) == 1
        assert two.take("y")
        assert count_busy(active_workers(store, [])) == 2
    left, cost = {"a": 10, "b": 4, "c": 2}, {"a": 2.0, "b": 1.0}  # c is taken to cost 1.5
    assert seconds_left(left, cost, 1) == 27
    assert seconds_left(left, cost, 2) == 13.5
    assert seconds_left(left, {}, 1) is None


def test_a_log_hears_of_warm_ups_too(capsys, monkeypatch):
    """Those of many cells take long before the first image: a line every ten seconds, none of quick ones."""
    now = [100.0]
    monkeypatch.setattr("fovea.study.run.progress.time.monotonic", lambda: now[0])
    progress = Progress()
    progress.tell(Remaining({"a": 4, "b": 4, "c": 4}, 1))
    for cell, at in (("a", 105.0), ("b", 111.0), ("c", 112.0)):
        now[0] = at
        progress.tell(WarmedUp(cell, 2.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("0/12 images  24 s left  (warm-up of 2 of 3 cells)")


def test_the_time_left_of_images_that_others_make(capsys, monkeypatch):
    """A launcher's process makes none itself. Its workers load for 20 s, and then make one after another in
    10 s each, two at a time: only what they have made in a known time tells."""
    now = [100.0]
    monkeypatch.setattr("fovea.study.run.progress.time.monotonic", lambda: now[0])
    progress = Progress()
    progress.tell(Remaining({"a": 4, "b": 4}, 1))
    assert progress.seconds_left() is None
    told = {130.0: {"a": 2}, 141.0: {"a": 1, "b": 3}, 152.0: {"a": 0, "b": 2}, 160.0: {"b": 0}}
    for now[0], left in told.items():
        progress.tell(Remaining(left, 2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].endswith("2/8 images  time left unknown  (others)")
    assert lines[2].endswith("4/8 images  22 s left  (others)")  # 4 left, 2 in 11 s
    assert lines[3].endswith("6/8 images  11 s left  (others)")  # 2 left, 4 in 22 s
    assert lines[4].endswith("8/8 images  0 s left  (others)")


def test_the_time_left_counts_no_failed_cell_as_made(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fovea.study.run.progress.time.monotonic", lambda: now[0])
    progress = Progress()
    progress.tell(Remaining({"a": 4, "b": 4}, 2))
    progress.tell(Remaining({"a": 3}, 2))
    progress.tell(Failed("b", "b", "why"))
    assert progress.seconds_left() is None
    now[0] = 110.0
    progress.tell(Remaining({"a": 2}, 2))
    assert progress.seconds_left() == 20

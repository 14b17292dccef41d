"""A sample is there whole or not at all."""

import os
import subprocess
import sys

import pytest

from fovea.study.config.errors import Refused
from fovea.study.store import Store, write, write_json


def record(seconds=1.0):
    return {"batch": {"id": "b", "size": 1, "seconds": seconds}}


def test_a_sample_counts_once_its_record_is_there(tmp_path):
    store = Store(tmp_path)
    store.add("c", {"k": (b"png", record())})
    assert list(store.samples("c")) == ["k"]
    write(store.image("c", "only_an_image"), b"png")
    write_json(store.image("c", "only_a_record").with_suffix(".json"), record())
    store.image("c", "torn").with_suffix(".json").write_text('{"batch": {"id"')
    write(store.image("c", "torn"), b"png")
    assert list(store.samples("c")) == ["k"]


def test_a_write_that_dies_leaves_what_was_there(tmp_path, monkeypatch):
    write(tmp_path / "x", "old")

    def die(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(OSError, match="power cut"):
        write(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"


def test_leftovers_are_ignored_and_cleared(tmp_path):
    store = Store(tmp_path)
    store.add("c", {"k": (b"png", record())})
    part = tmp_path / "cells" / "c" / "samples" / ".k2.json.1.part"
    part.write_text("{}")
    assert list(store.samples("c")) == ["k"]
    with store.lock():
        assert not part.exists()


def test_what_is_known_of_a_cell_adds_up(tmp_path):
    store = Store(tmp_path)
    store.describe("c", {"label": "a"})
    store.describe("c", {"flops": 1})
    assert store.described("c") == {"label": "a", "flops": 1}


def test_failures_are_appended(tmp_path):
    store = Store(tmp_path)
    store.fail("c", {"message": "é\n"})
    store.fail("c", {"message": "again"})
    assert [f["message"] for f in store.failures("c")] == ["é\n", "again"]
    assert store.failures("none") == []


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    code = f"import pathlib, study.store as s; s.Store(pathlib.Path({str(tmp_path)!r})).lock().__enter__()"
    with Store(tmp_path).lock():
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert f"another process (process {os.getpid()}) works on this study" in run.stderr
        with pytest.raises(Refused, match="name="), Store(tmp_path).lock():
            raise AssertionError("two processes hold one study")
    with Store(tmp_path).lock():
        assert (tmp_path / ".lock").exists()

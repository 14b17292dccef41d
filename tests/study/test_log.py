"""wandb gets config, table, plots and images; whatever goes wrong there costs nothing."""

import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from study.log import Nothing, Wandb


@pytest.fixture
def plan():
    samples = [SimpleNamespace(key="k", prompt=SimpleNamespace(text="<b>"))]
    return SimpleNamespace(name="x", config={"n": 1}, random_weights=True, samples=samples)


@pytest.fixture
def folder(tmp_path):
    pd.DataFrame({"label": ["dense"]}).to_parquet(tmp_path / "table.parquet")
    (tmp_path / "cells" / "c" / "samples").mkdir(parents=True)
    for file in (tmp_path / "pareto.png", tmp_path / "cells" / "c" / "samples" / "k.png"):
        file.write_bytes(b"png")
    return tmp_path


class FakeRun:
    def __init__(self):
        self.logged, self.finished = {}, False

    def log(self, values):
        self.logged |= values

    def finish(self):
        self.finished = True


def fake(run, **calls):
    def init(**options):
        calls.update(options)
        return run

    def thing(*values, **options):
        return values, options

    return SimpleNamespace(init=init, Table=thing, Image=thing, Settings=thing), calls


def test_config_table_plots_and_images(plan, folder, monkeypatch):
    run = FakeRun()
    module, calls = fake(run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    row = SimpleNamespace(cell=SimpleNamespace(id="c", label="dense"))
    Wandb(project="p")(plan, [row], folder)
    assert set(run.logged) == {"table", "pareto", "images/dense"}
    assert (calls["project"], calls["mode"], calls["tags"]) == ("p", "offline", ["random weights"])
    assert calls["config"] == {"n": 1, "random_weights": True}
    assert run.finished


def test_a_failure_is_a_warning(plan, folder, monkeypatch, capsys):
    def refuse(**_):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse, Settings=dict))
    Wandb()(plan, [], folder)
    assert "not logged (ConnectionError: no network); the study itself is complete" in capsys.readouterr().err


def test_nothing(plan, folder):
    before = sorted(folder.rglob("*"))
    Nothing()(plan, [], folder)
    assert sorted(folder.rglob("*")) == before

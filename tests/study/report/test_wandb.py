"""wandb gets what lies in a study's folder, read back from an offline run; whatever goes wrong there costs
nothing."""

import json
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image

import run
from fovea.study.report.wandb import Nothing, Wandb
from fovea.study.stored import Stored
from tests.study import offline


@pytest.fixture
def study(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "a study")


def logged(folder):
    files = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    return files[0]


def media(folder, entry):
    return (logged(folder).parent / "files" / entry).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_a_run_logs_itself(small, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "whole")
    assert run.main([*small, f"results={tmp_path}", "name=whole", "logger=wandb"]) == 0
    out, err = capsys.readouterr()
    assert f"wandb: kept offline, to be sent by: wandb sync {folder}/wandb/offline-run-" in err
    assert json.loads(out.splitlines()[-1])["done"] == 4
    entries = offline.history(logged(folder))
    assert entries["table/nrows"] == 4
    held = json.loads(media(folder, entries["table/path"]))
    table = pd.DataFrame(held["data"], columns=held["columns"]).set_index("label")
    stored = pd.read_parquet(folder / "table.parquet").set_index("label")
    assert list(table.index) == list(stored.index)
    assert table["ssim"][1:].astype(float).tolist() == stored["ssim"][1:].tolist()
    for name in ("pareto", "focus", "grid"):
        assert media(folder, entries[f"{name}/path"]) == (folder / f"{name}.png").read_bytes()
    assert "report/path" in entries
    cell = stored.loc["ras ratio=0.5", "cell"]
    shown = [media(folder, name) for name in entries["images/ras ratio=0.5/filenames"]]
    assert shown == [
        Stored(folder).image(cell, key).read_bytes() for key in Stored(folder).provenance["samples"]
    ]
    assert '<script>alert("1")</script> (seed 0)' in entries["images/ras ratio=0.5/captions"]
    assert offline.summary(logged(folder))["ras ratio=0.5/speedup"] == stored.loc["ras ratio=0.5", "speedup"]
    config = offline.config(logged(folder))
    assert config["made_by"]["commit"] == Stored(folder).provenance["commit"]
    assert config["made_by"]["machine"]["device"] == "cpu"
    assert "ras" in offline.tags(logged(folder))


def test_a_finished_study_is_logged_later_with_all_that_its_report_has(study, capsys):
    """Its pictures, its page, its traces; its images may be gone."""
    (study / "focus").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(study / "focus" / "ras.png")
    (study / "report.html").write_text("<h1>report</h1>", "utf-8")
    shutil.rmtree(study / "cells")
    assert run.main([f"show={study}", "logger=wandb", "logger.tags=[mine]"]) == 0
    assert f"wandb sync '{study}/wandb/offline-run-" in capsys.readouterr().err
    entries = offline.history(logged(study))
    assert not [name for name in entries if name.startswith("images/")]
    assert entries["focus/ras/_type"] == "image-file"
    assert media(study, entries["report/path"]).strip() == b"<h1>report</h1>"
    traces = pd.read_parquet(study / "traces.parquet")
    for name in ("error_mean", "tokens", "rank_correlation"):
        lines = json.loads(media(study, entries[f"curves/{name}_table/path"]))["data"]
        means = traces.dropna(subset=name).groupby(["label", "step"])[name].mean()
        assert {(label, step): y for step, label, y in lines} == pytest.approx(means.to_dict())
    assert "mine" in offline.tags(logged(study))


FAILURES = [
    ModuleNotFoundError("No module named 'wandb'"),
    OSError(28, "No space left on device"),
    SystemExit("gone"),
    RuntimeError("\x1b[31mred\nmore"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_is_one_line(failure, study, monkeypatch, capsys):
    """The exit code and the last line are as ever."""

    def init(**_):
        raise failure

    monkeypatch.setattr(wandb, "init", init)
    assert run.main([f"show={study}", "logger=wandb"]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"wandb: not logged ({type(failure).__name__}: ")
    assert "\x1b" not in err
    assert "the study itself is complete" in err
    assert json.loads(out.splitlines()[-1])["done"] == 4


def test_one_part_that_fails_costs_no_other(study, capsys):
    (study / "focus.png").write_bytes(b"no picture")
    Wandb()(study)
    assert "; without plots: UnidentifiedImageError" in capsys.readouterr().err
    entries = offline.history(logged(study))
    assert entries["table/nrows"] == 4
    assert "images/dense/filenames" in entries


def test_a_server_that_never_answers_is_given_up(study, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        Wandb(mode="online", timeout=2)(study)
    err = capsys.readouterr().err
    assert err.startswith("wandb: not sent (")
    assert "; kept offline, to be sent by: wandb sync " in err
    assert err.count("\n") == 1


def test_online_without_an_account_or_a_network_is_kept_offline(study, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    Wandb(mode="online", timeout=6)(study)
    err = capsys.readouterr().err
    assert err.startswith("wandb: not sent (")
    assert "; kept offline, to be sent by: wandb sync " in err
    assert err.count("\n") == 1
    assert offline.history(logged(study))["table/nrows"] == 4


@pytest.mark.parametrize("logger", [Nothing(), Wandb(mode="disabled")])
def test_nothing(logger, study):
    before = sorted(study.rglob("*"))
    logger(study)
    assert sorted(study.rglob("*")) == before

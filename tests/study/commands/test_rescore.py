"""rescore=FOLDER: other metrics over stored images, whatever has become of the model."""

import json
import shutil

import pandas as pd
import pytest

import run
from fovea.study.commands import command, rescore
from fovea.study.config.errors import Refused
from fovea.study.records import FailureRecord
from fovea.study.run import execute
from fovea.study.store import Store


@pytest.fixture
def study(finished, weights, tmp_path, monkeypatch):
    """A finished study, moved; its model and its prompts are gone, and nothing can be made."""
    monkeypatch.setattr(execute.Runner, "run", None)
    folder = shutil.copytree(finished, tmp_path / "moved")
    for file in (folder / "provenance.json", *folder.glob("runs/*.json"), *folder.glob("cells/*/cell.json")):
        text = file.read_text("utf-8").replace(str(weights), "/gone/model").replace("hostile.txt", "gone.txt")
        file.write_text(text, "utf-8")
    for traces in folder.glob("cells/*/traces"):  # drawing these takes most of a report's time
        shutil.rmtree(traces)
    return folder


def table(folder):
    return pd.read_parquet(folder / "table.parquet").set_index("label")


def origin(folder):
    return json.loads((folder / "provenance.json").read_text("utf-8"))


def images(folder):
    return {f.relative_to(folder): f.stat().st_mtime_ns for f in folder.glob("cells/*/images/*/*")}


def test_the_same_metrics_give_the_same_table(study, finished, capsys):
    before = images(study)
    assert run.main([f"rescore={study}"]) == 0
    out, err = capsys.readouterr()
    assert "nothing is generated: scoring 12 stored images of 4 cells with psnr, ssim" in err
    assert json.loads(out.splitlines()[-1])["rescored"] == ["psnr", "ssim"]
    assert images(study) == before
    pd.testing.assert_frame_equal(table(study), table(finished))
    for name in ("table.md", "table.csv", "samples.parquet"):
        assert (study / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_other_metrics_and_what_the_record_says(study, finished, capsys):
    before = origin(study)
    assert run.main([f"rescore={study}", "metric=[psnr,fid]", "cost=flops"]) == 0
    err = capsys.readouterr().err
    assert "with psnr, fid (before: psnr, ssim; only what is named now is in the table)" in err
    assert "fid will be unavailable" in err
    assert "`metric.fid.reference.path=PLACE`" in err
    found = table(study)
    assert "ssim" not in found
    assert found["fid[clean]"].isna().all()
    pd.testing.assert_series_equal(found["psnr"], table(finished)["psnr"])
    now = origin(study)
    assert now["rescored"]["command"] == f"python run.py rescore={study} 'metric=[psnr,fid]' cost=flops"
    assert list(now["config"]["metric"]) == ["psnr", "fid"]
    for key in ("command", "commit", "machine", "packages", "seeds", "noise", "samples"):
        assert now[key] == before[key]
    assert run.main([f"rescore={study}", "metric.fid.inception.batch=3"]) == 0  # of what is scored by now
    again = origin(study)["config"]
    assert again["metric"]["fid"]["inception"]["batch"] == 3
    assert again["cost"] == "flops"


def test_a_study_without_a_report_is_scored_by_its_last_start(study):
    (study / "provenance.json").unlink()
    made, _ = rescore.plan(study, [])
    assert [cell.label for cell in made.cells] == ["dense", "ras ratio=0.5", "ras ratio=0.25", "3 steps"]
    assert made.folder == study


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("method.ratio=0.3", "method.ratio=0.3: only eval, metric,"),
        ("n=3", "n=3: only eval, metric, cost, versus, logger, results can be given with rescore=..."),
        ("metric=[psnrr]", "no such metric; did you mean psnr?"),
        ("metric.psnr.window=3", "metric.psnr.window=3: PSNR has no window"),
        ("metric.fid.inception.batch=3", "fid is not used; add it"),
        ("eval=quik", "did you mean quick?"),
    ],
)
def test_refused(study, argument, message):
    with pytest.raises(Refused) as refusal:
        command.execute([f"rescore={study}", argument])
    assert message in str(refusal.value)


def test_a_name_is_enough_below_results(study):
    with pytest.raises(Refused, match="no such metric; did you mean psnr"):
        command.execute([f"rescore={study.name}", f"results={study.parent}", "metric=[psnrr]"])


def test_strict_refuses_what_gives_no_number(study):
    with pytest.raises(Refused, match=r"metric\.fid: no reference images are given"):
        rescore.plan(study, ["metric=[fid]", "eval.strict=true"])


def test_a_folder_that_is_no_study_is_refused_and_left_alone(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        assert run.main([f"rescore={folder}"]) == 2
        assert "no study; " in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())
    shutil.rmtree(study / "cells")
    assert run.main([f"rescore={study}"]) == 2
    assert f"the images of {study} are not here" in capsys.readouterr().err


def test_images_without_records_are_told_from_images_that_are_elsewhere(study, capsys):
    for file in study.glob("cells/*/records/*.jsonl"):
        file.write_bytes(file.read_bytes()[:100])
    assert run.main([f"rescore={study}"]) == 2
    assert f"no image of {study} has a record that can be read" in capsys.readouterr().err


def test_records_copied_as_text_are_the_same_records(study):
    before = rescore.plan(study, [])[0]
    for file in study.glob("cells/*/records/*.jsonl"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    store = Store(study)
    assert all(len(store.samples(cell.id)) == len(before.samples) for cell in before.cells)
    assert not any(store.broken([cell.id for cell in before.cells]).values())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("time", "told"),
    [("2000-01-01T00:00:00+00:00", "incomplete: 2 of 3 images are there"), ("2999", "NotFinite: NaN")],
)
def test_a_failure_that_later_batches_have_overcome_is_no_reason(study, time, told):
    label = "ras ratio=0.5"
    cell = table(study).loc[label, "cell"]
    next((study / "cells" / cell / "images").glob("*/*.png")).unlink()
    Store(study).append(FailureRecord(cell=cell, time=time, type="NotFinite", message="NaN", traceback=""))
    assert run.main([f"rescore={study}"]) == 3
    assert table(study).loc[label, "failure"] == told

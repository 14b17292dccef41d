"""python run.py on a tiny stock pipeline: what it leaves, killed and continued, with a cell that fails."""

import json
import os
import shutil

import pandas as pd
import pytest
import torch

import run
from fovea.methods import RAS
from fovea.study.run import execute
from fovea.study.run.generate import NotFinite, generate_batch
from fovea.study.store import Store

OUTPUTS = [
    "table.md",
    "table.csv",
    "table.tex",
    "pareto.png",
    "pareto.svg",
    "focus.png",
    "grid.png",
    "provenance.json",
]


def go(capsys, *arguments):
    """Exit code, the last line of stdout as an object, and the text of both streams."""
    code = run.main(list(arguments))
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), out, err


def of(n, small):
    """The small study with another number of images: a command line says n once."""
    return [f"n={n}" if word.startswith("n=") else word for word in small]


def table(folder):
    return pd.read_parquet(folder / "table.parquet").set_index("label")


def images(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.glob("cells/*/images/*/*.png")}


def test_it_leaves_everything(finished, prompts):
    assert not [name for name in OUTPUTS if not (finished / name).stat().st_size]
    found = table(finished)
    assert list(found.index) == ["dense", "ras ratio=0.5", "ras ratio=0.25", "3 steps"]
    assert (found["n"] == 3).all()
    assert found["failure"].isna().all()
    assert found.loc["3 steps", "flops_ratio"] == pytest.approx(2)
    assert (found["flops_counted_to_closed"] == 1).all()
    samples = pd.read_parquet(finished / "samples.parquet")
    assert set(samples["prompt"]) == set(prompts.read_text("utf-8").splitlines()[:3])
    assert samples.groupby("key")["noise"].nunique().eq(1).all()  # every cell started from the same noise
    origin = json.loads((finished / "provenance.json").read_text())
    assert set(origin["noise"]) == set(samples["key"])
    assert {"commit", "dirty", "packages", "config"} < set(origin)


def test_the_table_is_the_samples_averaged(finished):
    samples = pd.read_parquet(finished / "samples.parquet")
    ssim = samples.groupby("label")["ssim"].mean()
    full = samples[samples["batch_size"] == 2].groupby("label")["seconds"].median()
    found = table(finished)
    for label in ("ras ratio=0.5", "ras ratio=0.25", "3 steps"):
        assert found.loc[label, "ssim"] == pytest.approx(ssim[label])
        assert found.loc[label, "seconds"] == pytest.approx(full[label])


def test_focus_is_what_ran(finished):
    store, sparse = Store(finished), 0
    for folder in (finished / "cells").iterdir():
        records = store.samples(folder.name)
        for key, had in store.focus(folder.name, records).items():
            assert had.sum() == records[key].tokens
            sparse += 1
    assert sparse == 6


def test_again_makes_nothing(small, finished, capsys, monkeypatch):
    monkeypatch.setattr(execute.Runner, "run", None)
    before = images(finished), table(finished)
    code, summary, _, _ = go(capsys, *small, f"results={finished.parent}", "name=whole")
    assert (code, summary["done"], summary["failed"]) == (0, 4, 0)
    assert images(finished) == before[0]
    pd.testing.assert_frame_equal(table(finished), before[1])


def test_plan_prints_and_makes_nothing(small, finished, tmp_path, capsys):
    code, summary, out, _ = go(capsys, *small, f"results={tmp_path}", "plan=true")
    assert code == 0
    assert summary["images_left"] == 12
    assert summary["seconds_left"] is None
    assert "unknown" in out
    assert not list(tmp_path.iterdir())
    _, summary, _, _ = go(capsys, *small, f"results={finished.parent}", "name=other", "plan=true")
    assert summary["images_left"] == 12
    assert summary["seconds_left"] > 0


def test_plan_says_when_the_set_has_fewer_prompts(small, tmp_path, capsys):
    _, _, out, _ = go(capsys, *of(99, small), f"results={tmp_path}", "plan=true")
    assert "images per cell, not 99:" in out
    assert "has no more different prompts" in out


@pytest.mark.usefixtures("undrawn")
def test_a_study_whose_images_are_lost_while_it_runs_does_not_end_well(
    small, finished, tmp_path, capsys, monkeypatch
):
    shutil.copytree(finished, tmp_path / "whole")
    next(tmp_path.glob("whole/cells/*/images/*/*.png")).unlink()
    monkeypatch.setattr(Store, "lacking", lambda *_: {})  # it was there when the work began
    code, summary, out, _ = go(capsys, *small, f"results={tmp_path}", "name=whole")
    assert (code, summary["failed"], summary["done"]) == (3, 1, 3)
    assert "incomplete: 2 of 3 images are there" in " ".join(out.split())


def test_a_report_of_other_weights_is_told_before_it_is_written_over(small, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "whole")
    file = tmp_path / "whole" / "provenance.json"
    before = json.loads(file.read_text())
    for cell in before["cells"].values():
        cell["weights"] = "0" * 12
    before["cells"] = {cell[::-1]: known for cell, known in before["cells"].items()}
    file.write_text(json.dumps(before))
    other = ["batch=1" if word.startswith("batch=") else word for word in small]
    _, _, out, _ = go(capsys, *other, f"results={tmp_path}", "name=whole", "plan=true")
    told = "has another study's report, with dense, ras ratio=0.5, ras ratio=0.25, 3 steps"
    assert f"{told} (changed since: batch, weights): a run writes over it" in " ".join(out.split())


@pytest.mark.usefixtures("undrawn")
def test_killed_within_a_batch_its_images_are_the_same_to_the_bit(small, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "whole")
    lost = sorted(tmp_path.glob("whole/cells/*/images/*/*.png"))[1::3]
    for picture in lost:
        picture.unlink()
    assert go(capsys, *small, f"results={tmp_path}", "name=whole")[0] == 0
    pictures = [picture.relative_to(tmp_path / "whole") for picture in lost]
    assert all((tmp_path / "whole" / p).read_bytes() == (finished / p).read_bytes() for p in pictures)


def test_images_that_are_not_the_recorded_ones_are_told_and_made_again(small, finished, tmp_path, capsys):
    """Cut, changed without a change of its size or time, and another cell's: a rescore does without them."""
    folder = shutil.copytree(finished, tmp_path / "whole")
    cells, key = list(table(finished)["cell"]), pd.read_parquet(finished / "samples.parquet")["key"][0]
    cut, flipped, swapped = (Store(folder).image(cell, key) for cell in cells[:3])
    cut.write_bytes(cut.read_bytes()[:-40])
    damaged, times = bytearray(flipped.read_bytes()), flipped.stat()
    damaged[len(damaged) // 2] ^= 255
    flipped.write_bytes(damaged)
    os.utime(flipped, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.copy(Store(folder).image(cells[3], key), swapped)
    records = next((folder / "cells" / cells[0] / "records").glob("*.jsonl"))
    records.write_text("{}\n" + records.read_text())
    code, summary, _, err = go(capsys, f"rescore={folder}")
    assert (code, summary["done"], summary["failed"]) == (3, 1, 3)
    assert f"{cut} and 1 more: not readable, or not the image that was recorded; missing here" in err
    assert f"{flipped} cannot be read as an image" in err
    assert table(folder)["failure"].tolist()[:3] == ["incomplete: 2 of 3 images are there"] * 3
    code, summary, _, err = go(capsys, *small, f"results={tmp_path}", "name=whole")
    assert (code, summary["done"], summary["failed"]) == (0, 4, 0)
    assert f"{cut} and 1 more: not readable, or not the image that was recorded; made again" in err
    assert f"{records.parent}: a line is no record, but torn, changed or another cell's; made again" in err
    assert images(folder) == images(finished)
    pd.testing.assert_series_equal(table(folder)["ssim"], table(finished)["ssim"])


def test_a_failed_cell_is_data_and_the_rest_goes_on(small, tmp_path, capsys, monkeypatch, request):
    fine = RAS.__call__

    def poisoned(self, flow, on_step=None):
        x = fine(self, flow, on_step)
        return x * float("nan") if self.ratio == 0.25 else x

    monkeypatch.setattr(RAS, "__call__", poisoned)
    arguments = [*of(2, small), f"results={tmp_path}", "name=x"]
    code, summary, out, err = go(capsys, *arguments)
    assert (code, summary["done"], summary["failed"]) == (3, 3, 1)
    assert "ras ratio=0.25 failed: NotFinite: NaN or Inf in the latents of 2 of 2 images" in out
    assert "failed" in err
    failed = next(row["label"] for row in summary["rows"] if "failure" in row)
    failure = Store(tmp_path / "x").samples(table(tmp_path / "x").loc[failed, "cell"]).failures[0]
    assert failure.type == "NotFinite"
    request.getfixturevalue("undrawn")
    assert "study/run/generate.py" in failure.traceback
    monkeypatch.setattr(RAS, "__call__", fine)
    lost = next(
        (tmp_path / "x" / "cells" / table(tmp_path / "x").loc["ras ratio=0.5", "cell"]).glob("images/*/*")
    )
    lost.unlink()
    code, summary, _, _ = go(capsys, *arguments, "retry=failed")
    assert (code, summary["done"], summary["failed"]) == (3, 3, 1)
    assert not lost.exists()
    code, summary, _, _ = go(capsys, *arguments)
    assert (code, summary["done"], summary["failed"]) == (0, 4, 0)


def test_interrupted_says_how_to_go_on(small, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "generate_batch", stop)
    assert run.main([*small, f"results={tmp_path}"]) == 130
    assert "continue with the same command" in capsys.readouterr().err


def test_random_weights_are_marked_and_get_no_quality(small, weights, tmp_path, capsys):
    index = weights / "model_index.json"
    said = index.read_text()
    index.write_text(json.dumps(json.loads(said) | {"weights": "random"}))
    try:
        code, summary, out, _ = go(capsys, *of(1, small), f"results={tmp_path}", "name=x", "sweep=none")
    finally:
        index.write_text(said)
    assert code == 0
    assert summary["random_weights"]
    assert "RANDOM WEIGHTS" in out
    assert table(tmp_path / "x")["ssim"].isna().all()
    assert summary["rows"][1]["speedup"] > 0
    assert "RANDOM WEIGHTS" in (tmp_path / "x" / "pareto.svg").read_text()
    assert all(b"RANDOM WEIGHTS" in data for data in images(tmp_path / "x").values())


def test_nan_is_found_where_it_arises(small, weights):
    from fovea.models import adapt
    from fovea.study.config.instantiate import instantiate
    from fovea.study.plan.plan import make as plan

    made = plan(small)
    with (
        adapt(instantiate(made.cells[0].model, "model", "fovea.models").load()) as model,
        pytest.raises(NotFinite, match="1 of 2"),
    ):
        generate_batch(
            model,
            lambda flow, on_step: flow.noise() * torch.tensor([1.0, torch.inf])[:, None, None],
            made.cells[0],
            made.samples[:2],
        )


ONE = [
    *("method=baseline", "sweep=none", "sweep.curve=null", "eval=none", "n=1", "batch=1"),
    *("model.steps=2", "model.height=64", "model.width=96"),
]


@pytest.mark.usefixtures("undrawn")
def test_prompts_that_are_cut_are_counted_and_not_printed(weights, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("word " * 100)
    chosen = [f"model.path={weights}", f"prompts={tmp_path / 'long.txt'}"]
    code, _, out, err = go(capsys, *ONE, *chosen, f"results={tmp_path}", "name=long")
    assert code == 0
    assert "1 of 1 prompts is cut at" in out
    assert "word" not in out + err


def test_a_pipeline_that_cannot_be_followed_is_a_failure_with_its_reason(weights, prompts, tmp_path, capsys):
    folder = shutil.copytree(weights, tmp_path / "heun")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 1.0}))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("FlowMatchEuler", "FlowMatchHeun"))
    chosen = [f"model.path={folder}", f"prompts={prompts}"]
    code, last, _, _ = go(capsys, *ONE, *chosen, f"results={tmp_path}", "name=heun")
    assert code == 3
    assert last["failed"] == 1

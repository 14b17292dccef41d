"""scripts/gpu.sh and what it runs beside studies: as far as they go without a GPU."""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import run
from fovea.models.gpu import Gpu, Operation
from fovea.study.files import read_json
from fovea.study.plan.plan import make
from scripts import compiled, fit_forecast
from tests.pipelines import PIPELINES, saved

ROOT = Path(run.__file__).resolve().parent
GPU = Gpu("made up", tflops=300, float32=20, memory=80, bandwidth=2000, source="none")


def script(folder, *arguments, python="echo", models="sd3", root=ROOT):
    """scripts/gpu.sh with another program for Python."""
    env = os.environ | {
        "PYTHON": python,
        "DONE": str(folder),
        "MODELS": models,
        "NAME": "NVIDIA A100-SXM4-80GB, 81920",
    }
    command = ["bash", "scripts/gpu.sh", *arguments]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)


def commands(folder, *arguments, models="sd3", root=ROOT):
    """What the script would have Python do."""
    told = script(folder, *arguments, models=models, root=root)
    assert told.returncode == 0
    return [shlex.split(line) for line in told.stdout.splitlines() if line.startswith(("run.py", "-m"))]


def test_every_study_of_the_script_can_be_planned(tmp_path):
    found = commands(tmp_path, "short", "smoke", "timing", "compile", "papers")
    studies = [words[1:] for words in found if words[0] == "run.py"]
    assert len(studies) == 1 + 2 + 1 + 5
    assert len(found) - len(studies) == 1 + 1
    for words in studies:
        plan = make([*words, "plan=true", "on=a100_80"])
        assert plan.random_weights
        assert len(plan.samples) in (1, 2, 4)
    assert not commands(tmp_path, "smoke", "timing", "compile", "papers")  # all is done


def test_a_dry_run_needs_no_gpu(tmp_path):
    studies = [words[1:] for words in commands(tmp_path, "--dry-run", "smoke") if words[0] == "run.py"]
    for words in studies:
        assert "model=sd3_tiny" in words
        assert not make([*words, "plan=true"]).random_weights


def test_the_studies_of_the_embedded_models_are_complete_and_scored(tmp_path):
    *studies, matrix, selections, ten = commands(tmp_path, "tiny", models="sd3 lumina")
    assert matrix == ["-m", "scripts.matrix", "results", "gpu-matrix"]
    assert selections == ["-m", "scripts.selections", "results", "gpu-selections"]
    assert ten == ["-m", "scripts.selections", "results", "gpu-selections10"]
    plans = [make([*words[1:], "plan=true"]) for words in studies]
    tables = {f"gpu-{file.stem}" for file in (ROOT / "conf/experiment").glob("*.yaml")}
    kinds = ("matrix", "selections", "selections10", "guidance")
    both = {f"gpu-{kind}-{m}" for kind in kinds for m in ("sd3", "lumina")}
    assert Counter(plan.name for plan in plans) == Counter(tables | both | {"gpu-kept-text-sd3"})
    for plan in plans:
        assert (len(plan.samples), plan.settings.batch, plan.settings.cost) == (100, 50, "flops")
        wanted = {"psnr"} if "selections" in plan.name else {"psnr", "fd_emoji", "clip_score_emoji"}
        assert wanted <= plan.metrics.keys()
        assert not plan.random_weights
        assert not plan.unavailable
    assert not commands(tmp_path, "tiny", models="sd3 lumina")  # all is done


def test_a_budget_ends_the_studies_of_the_embedded_models(tmp_path, monkeypatch):
    monkeypatch.setenv("BUDGET", "240")
    *studies, _, _, _ = commands(tmp_path, "tiny")
    assert all("time_limit=240" in words for words in studies)


def test_a_study_that_fails_leaves_the_tables_to_be_made_again(tmp_path):
    told = script(tmp_path, "tiny", python="false")
    assert told.returncode == 1
    assert "matrix-sd3: failed with 1" in told.stdout
    assert not [*tmp_path.iterdir()]


def test_what_travels_is_small_and_says_its_commit(tmp_path):
    """The archive, unpacked, plans the studies of a GPU and knows its commit; a dry run misses the models."""
    pack = ["bash", str(ROOT / "scripts" / "gpu.sh"), "pack", "gpu.tar.gz"]
    subprocess.run(pack, cwd=tmp_path, check=True, capture_output=True)
    archive = tmp_path / "gpu.tar.gz"
    assert archive.stat().st_size < 20e6
    subprocess.run(["tar", "-xzf", archive], cwd=tmp_path, check=True)
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file() and not f.is_symlink()) < 60e6
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    ask = "from fovea.study.run.provenance import git; print(git()['commit'])"
    told = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert told.stdout == head.stdout
    with_models = ["bash", str(ROOT / "scripts" / "gpu.sh"), "pack", "tiny.tar.gz", "tiny"]
    subprocess.run(with_models, cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(tmp_path / "tiny.tar.gz") as tiny:
        names = tiny.getnames()
    assert {f"assets/{model}_tiny/transformer/config.json" for model in ("sd3", "flux")} < {*names}
    assert commands(tmp_path / "done", "smoke", root=tmp_path) == commands(tmp_path / "done2", "smoke")
    dry = ["bash", "scripts/gpu.sh", "--dry-run", "smoke"]
    refused = subprocess.run(dry, cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (
        2,
        "--dry-run: needs assets/sd3_tiny, which a pack leaves out\n",
    )


def test_losses_are_found_again():
    """Of times that a GPU with other losses would take."""
    true = replace(GPU, compute=0.45, traffic=0.7, launch=6.5)
    dense = Counter({Operation(10**12, 10**8): 50, Operation(0, 10**9): 40, Operation(0, 10**4): 500})
    sparse = Counter({Operation(10**11, 10**8): 50, Operation(0, 10**8): 40, Operation(0, 10**4): 700})
    few = Counter({Operation(10**12, 10**8): 5, Operation(0, 10**9): 90})
    runs = [(work, true.seconds(work)) for work in (dense, sparse, few)]
    found = fit_forecast.fit(GPU, runs)
    assert (found.compute, found.traffic, found.launch) == pytest.approx((0.45, 0.7, 6.5), rel=1e-3)
    with pytest.raises(ValueError, match="three at least"):
        fit_forecast.fit(GPU, runs[:2])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(PIPELINES["lumina"](), tmp_path_factory.mktemp("lumina"))


def test_a_study_is_set_beside_its_forecast(weights, tmp_path):
    words = [f"model.path={weights}", "model.steps=6", "model.height=64", "model.width=64", "method.start=2"]
    words += [
        f"results={tmp_path}",
        "name=timed",
        "prompts=emoji",
        "n=2",
        "batch=1",
        "eval=none",
        "metric=[]",
    ]
    assert run.main([*words, "sweep.grid.method.ratio=[0.5]", "sweep.curve=[0.5]"]) == 0
    found = fit_forecast.main([str(tmp_path / "timed"), "--on", "l40s"])
    assert [row["label"] for row in found["rows"]] == ["dense", "ras ratio=0.5", "3 steps"]
    assert all(0 < row["forecast"] < row["measured"] for row in found["rows"])  # a CPU is slower
    kept = read_json(tmp_path / "timed" / "forecast.json")
    assert kept is not None
    assert kept["losses"] == found["losses"]
    assert {"machine", "commit"} < kept.keys()
    shutil.rmtree(tmp_path / "timed" / "cells")  # as committed: first calls are in the records alone
    again = fit_forecast.main([str(tmp_path / "timed"), "--on", "l40s"])
    assert [row["first call"] for row in again["rows"]] == [row["first call"] for row in found["rows"]]
    assert all(row["first call"] for row in again["rows"])
    assert again["states"] == found["states"] != []


def test_compiled_blocks_are_few_graphs(weights, tmp_path):
    size = ["model.height=64", "model.width=64", "--steps", "2", "--backend", "eager"]
    found = compiled.main([f"model.path={weights}", *size, "--out", str(tmp_path / "compiled.json")])
    assert [*found["compiled"]] == ["dense", "ras 0.5", "ras 0.25"]
    assert all(run["graphs"] == 0 for run in found["plain"].values())
    assert sum(run["graphs"] for run in found["compiled"].values()) > 0
    assert read_json(tmp_path / "compiled.json") == found

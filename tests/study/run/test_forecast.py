"""A forecast beside the run that it forecasts, what it says does not fit, and what it refuses."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import run
from fovea.models import adapt
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.plan import make
from fovea.study.report.forecast import table
from fovea.study.run.forecast import GIB, Forecast, Parts, forecasts
from fovea.study.run.generate import flow

ROOT = Path(run.__file__).resolve().parent


@pytest.fixture(scope="module")
def planned(small):
    plan = make([*small, "plan=true", "on=h100"])
    return plan, forecasts(plan)


def test_flops_are_those_of_the_run(planned):
    plan, found = planned
    checkpoint = instantiate(plan.cells[0].model, "model", "fovea.models")
    with adapt(checkpoint.load()) as model:
        for cell in plan.cells:
            ready = flow(model, cell, plan.samples[:2])
            instantiate(cell.method, "method", "fovea.methods")(ready)
            assert ready.flops(0) == ready.flops(1) == found[cell.id].flops


def test_plan_tells_it_apart(small, tmp_path, capsys):
    words = [*small, f"results={tmp_path}", "plan=true", "on=h100", "on.launch=0"]
    assert run.main(words) == 0
    out = capsys.readouterr().out
    summary = json.loads(out.splitlines()[-1])
    assert "Forecast, not measured: H100 SXM" in out
    assert summary["seconds_left"] is None
    dense, *_ = summary["forecast"]["rows"]
    assert dense["speedup"] == dense["by_roofline"] == 1
    assert 0 < dense["seconds"] < 1
    assert not [*tmp_path.iterdir()]


def test_bounds(planned):
    """A kernel's launch counts in the time, and neither in the FLOPs nor in the roofline."""
    plan, found = planned
    dense, ras, *_ = plan.cells
    costly = forecasts(replace(plan, cells=[dense, ras], gpu=replace(plan.gpu, launch=1e6)))
    assert costly[ras.id].roofline == found[ras.id].roofline
    assert costly[ras.id].seconds == pytest.approx(costly[ras.id].kernels, rel=1e-3)
    row = table(plan, costly | {c.id: found[c.id] for c in plan.cells[2:]}).rows[1]
    assert row["speedup"].value == pytest.approx(row["by_launches"].value, rel=1e-3)
    assert row["by_flops"].value == found[dense.id].flops / found[ras.id].flops


def test_a_threshold_is_not_foreseen(small):
    words = ["method=caching", "cache=fbcache", "sweep=none", "sweep.curve=null", "plan=true", "on=l40s"]
    plan = make([w for w in small if not w.startswith(("method.", "sweep."))] + words)
    found = forecasts(plan)
    dense, cached = plan.cells
    assert (found[dense.id].guessed, found[cached.id].guessed) == (False, True)
    assert found[cached.id].flops == pytest.approx(found[dense.id].flops, rel=0.01)
    assert any("decides by values" in note for note in table(plan, found).notes)


def forecast(batch=4):
    return Forecast(
        cell="x",
        batch=batch,
        flops=1,
        seconds=1,
        encode=1,
        decode=1,
        roofline=1,
        kernels=1,
        weights=Parts(10 * GIB, 20 * GIB, 1 * GIB),
        itemsize=2,
        running=Parts(1 * GIB, 8 * GIB, 4 * GIB),
        guessed=False,
        operations=Counter(),
    )


def test_memory_by_hand():
    own = forecast()
    assert own.memory() == 31 + 8
    assert own.memory(batch=1) == 31 + 2
    assert own.memory(offload=True) == 20 + 8
    assert own.memory(bits=8) == 5 + 10 + 1 + 8
    assert own.memory(1, True, 4) == 20 * 9 / 32 + 2


def test_what_would_fit():
    own = forecast()
    offloaded = "the parts on the GPU in turns (enable_model_cpu_offload)"
    assert own.remedies(36) == {
        "batch=2": 35,
        offloaded: 28,
        "weights of 8 bits": 24,
        "weights of 4 bits": 17.4375,
    }
    assert list(own.remedies(24)) == ["weights of 8 bits", "weights of 4 bits"]
    assert list(own.remedies(12)) == ["batch=1, the parts in turns, weights of 8 bits"]
    assert not own.remedies(5)


REFUSED = {
    ("on=h100",): "plan=true on=h100",
    ("plan=true", "on=h10"): "on=h10: no such on; did you mean h100? allowed: a100_40",
    ("plan=true", "on=h100", "on.compute=2"): "on.compute=2: must be less than or equal to 1",
    ("plan=true", "on=h100", "on.bandwith=2"): "did you mean bandwidth?",
    ("plan=true", "on=h100,h200"): "every cell has the same on",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused(small, words):
    with pytest.raises(Refused) as refusal:
        make([*small, *words])
    assert REFUSED[words] in str(refusal.value)


def test_no_weights_are_needed():
    plan = make(
        ["model=sd3", "sweep=none", "sweep.curve=null", "metric=[]", "n=1", "plan=true", "on=a100_80"]
    )
    assert plan.gpu.name == "A100 80GB SXM"


def test_the_docs_have_the_forecasts_of_ras():
    """Of SD3 at full size, as docs/papers.md has them beside the paper's."""
    words = ["experiment=ras_table3", "prompts=emoji", "plan=true", "on=a100_80", "sweep.curve=null"]
    plan = make(words)
    plan = replace(plan, cells=[cell for cell in plan.cells if cell.model["family"] == "sd3"])
    text = (ROOT / "docs" / "papers.md").read_text("utf-8")
    for row in table(plan, forecasts(plan)).rows[1:]:
        label = row["label"].value.replace("sd3 ", "SD3, ")
        line = next(line for line in text.splitlines() if label in line)
        columns = [part.strip(" x") for part in line.split("|")]
        expected = [f"{row[key].value:.2f}" for key in ("seconds", "speedup", "by_flops")]
        assert [columns[3], columns[5], columns[6]] == expected

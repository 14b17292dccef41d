"""A forecast beside the run that it forecasts, what it says does not fit, and what it refuses."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import run
from fovea.models import adapt
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.plan import make
from fovea.study.report.forecast import hours, table
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
    most = dict(table(plan, found).rows[1]["speedup"].__dict__)
    assert most["low"] == most["value"] == pytest.approx(1, abs=0.05)
    assert most["high"] == found[dense.id].seconds / found[cached.id].least.seconds > 1.5
    checkpoint = instantiate(cached.model, "model", "fovea.models")
    method = instantiate(
        cached.method | {"cache": cached.method["cache"] | {"threshold": 1e9}}, "m", "fovea.methods"
    )
    with adapt(checkpoint.load()) as model:
        ready = flow(model, cached, plan.samples[:2])
        method(ready)
    assert found[cached.id].least.flops == ready.flops(0)  # as a run that skips all it may
    assert any("decides by values" in note for note in table(plan, found).notes)


@pytest.mark.parametrize("threshold", [0.4, 0.6])
def test_the_range_is_the_same_for_every_threshold(small, threshold):
    """A number that is not known reads as 0.5, which the second does not exceed."""
    words = ["method=caching", "cache=fbcache", f"method.cache.threshold={threshold}", "sweep=none"]
    words += ["sweep.curve=null", "plan=true", "on=l40s"]
    plan = make([w for w in small if not w.startswith(("method.", "sweep."))] + words)
    (dense, cached), found = plan.cells, forecasts(plan)
    assert found[cached.id].flops == pytest.approx(found[dense.id].flops, rel=0.01)
    assert found[cached.id].least.flops < found[dense.id].flops / 1.5


@pytest.mark.parametrize("similarity", [0.3, 0.9])
def test_guidance_that_ends_by_similarity_ends_at_the_first_step_or_never(small, similarity):
    words = ["method=guidance", "method.stop=0.75", f"method.similarity={similarity}", "model.steps=4"]
    words += ["sweep=none", "sweep.curve=null", "plan=true", "on=l40s"]
    plan = make([w for w in small if not w.startswith(("method", "sweep.", "model.steps"))] + words)
    (dense, limited), found = plan.cells, forecasts(plan)
    evaluation = found[dense.id].flops / 8  # of 4 steps with two each
    assert found[limited.id].flops == 7 * evaluation
    assert found[limited.id].least.flops == 5 * evaluation
    row = table(plan, found).rows[1]["by_flops"]
    assert (row.low, row.high) == (8 / 7, 8 / 5)


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
        linear=16 * GIB,
    )


def test_memory_by_hand():
    own = forecast()
    assert own.memory() == 31 + 8
    assert own.memory(batch=1) == 31 + 2
    assert own.memory(offload="model") == 20 + 8
    assert own.memory(offload="sequential") == 8
    assert own.memory(quantize="int8") == 10 + (4 + 16 / 2) + 1 + 8
    assert own.memory(1, "model", "nf4") == max(4 + 16 * 4.5 / 16 + 2, 10 + 1 / 4)
    assert replace(own, offload="model").memory() == 20 + 8
    assert replace(own, quantize="nf4").memory() == 10 + (4 + 4.5) + 1 + 8


def test_what_would_fit():
    own = forecast()
    assert own.remedies(36) == {
        "batch=2": 35,
        "model.offload=model": 28,
        "model.quantize=int8": 31,
        "model.quantize=nf4": 27.5,
    }
    assert list(own.remedies(27.8)) == ["model.quantize=nf4"]
    assert own.remedies(12) == {"batch=1 model.offload=model model.quantize=nf4": 10.5}
    assert own.remedies(5) == {"batch=1 model.offload=sequential": 2}
    assert not own.remedies(1)


@pytest.mark.parametrize("settings", [{"quantize": "int8"}, {"offload": "model"}])
def test_a_models_own_settings_count_in_its_memory(small, planned, settings):
    words = [word for word in small if not word.startswith(("method.", "sweep."))]
    words += [f"model.{key}={value}" for key, value in settings.items()]
    plan = make([*words, "plan=true", "on=h100", "sweep=none", "sweep.curve=null", "method=steps"])
    (own, *_), (plain, *_) = forecasts(plan).values(), planned[1].values()
    assert own.memory() == plain.memory(**settings) < plain.memory()
    assert own.seconds == plain.seconds


@pytest.mark.parametrize(
    "setting", ["quantize=int8", "offload=sequential", "compile=blocks", "attention=math"]
)
def test_a_setting_whose_time_is_not_forecast_is_named(planned, setting):
    plan, found = planned
    key, value = setting.split("=")
    slower = replace(plan, cells=[replace(cell, model=cell.model | {key: value}) for cell in plan.cells])
    added = [note for note in table(slower, found).notes if note not in table(plan, found).notes]
    assert [note.partition(":")[0] for note in added] == [f"model.{setting}"]


def test_hours_are_of_all_that_runs(planned):
    """Images, the warm-up of a batch and the traced ones, by hand."""
    plan, _ = planned
    plan = replace(plan, settings=replace(plan.settings, batch=2, traces=1, cost="time"))
    one = replace(forecast(), cell=plan.cells[0].id, seconds=8.0, encode=1.0, decode=3.0)
    for cost, warm_up in (("time", 2), ("flops", 1)):
        given = replace(plan, cells=plan.cells[:1], settings=replace(plan.settings, cost=cost))
        (row,) = table(given, {one.cell: one}).rows
        seconds = (len(plan.samples) + warm_up) * (8 + 1 + 3) + 1 * (8 + 1)
        assert row["gpu_hours"].value == pytest.approx(seconds / 3600)
        assert hours(given, {one.cell: one}) == pytest.approx((seconds / 3600,) * 2)


@pytest.mark.parametrize(("model", "billions", "tokens"), [("krea2", 4.45, 2 * 546), ("flux", 4.9, 512)])
def test_text_encoders_take_the_time_of_their_own_size_alone(model, billions, tokens):
    """One to four times that of the FLOPs of their parameters. A part of Krea 2's transformer reads the text,
    too, and its small encoder has all layers of the real one."""
    words = [f"model={model}", "method=steps", "sweep=none", "sweep.curve=null", "n=1", "batch=1"]
    plan = make([*words, "prompts=emoji", "plan=true", "on=h100", "on.launch=0"])
    (one,) = forecasts(replace(plan, cells=plan.cells[:1])).values()
    arithmetic = 2 * billions * 1e9 * tokens / (plan.gpu.tflops * 1e12 * plan.gpu.compute)
    assert arithmetic < one.encode < 4 * arithmetic


REFUSED = {
    ("on=h100",): "add plan=true",
    ("plan=true", "on=h10"): "on=h10: no such on; did you mean h100? allowed: a100_40",
    ("plan=true", "on=h100", "on.compute=2"): "on.compute=2: must be less than or equal to 1",
    ("plan=true", "on=h100", "on.bandwith=2"): "did you mean bandwidth?",
    ("plan=true", "on=h100,h200"): "on must be the same in every cell",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_refused(small, words):
    with pytest.raises(Refused) as refusal:
        make([*small, *words])
    assert REFUSED[words] in str(refusal.value)


def test_what_only_the_model_shows_is_refused_by_the_cells_name():
    """Its blocks, where no weights are here: the plan does not know them, and the forecast builds them."""
    blocks = ["method=caching", "cache=dbcache", "method.cache.front=30", "method.cache.back=40"]
    model = ["model=flux", "sweep=none", "sweep.curve=null", "metric=[]", "n=1"]
    plan = make([*model, *blocks, "plan=true", "on=h100"])
    cached = [cell for cell in plan.cells if cell.label != "dense"]
    with pytest.raises(Refused, match="dbcache: front=30, back=40: no block is left in the middle of 57"):
        forecasts(replace(plan, cells=cached))


def test_no_weights_are_needed():
    plan = make(
        ["model=sd3", "sweep=none", "sweep.curve=null", "metric=[]", "n=1", "plan=true", "on=a100_80"]
    )
    assert plan.gpu.name == "A100 80GB SXM"


def test_the_docs_have_the_memory_of_their_command():
    """Dense and, with its keys and values, RAS; at the batch size that the command has."""
    text = (ROOT / "docs" / "running.md").read_text("utf-8")
    line = r"run.py (model=flux .*offload.*?)  +# forecast: dense (\d+) .* (\d+), .* (\d+), not (\d+)"
    found = re.search(line, text)
    assert found is not None
    words, *said = found.groups()
    plan = make([*words.split(), "plan=true", "on=rtx4090"])
    cells = [cell for cell in plan.cells if cell.label in ("dense", "ras ratio=0.5")]
    dense, ras = forecasts(replace(plan, cells=cells)).values()
    needs = [
        one.memory(**own) for one in (dense, ras) for own in ({}, {"offload": "none", "quantize": "none"})
    ]
    assert [round(need) for need in needs] == [int(gib) for gib in said]


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

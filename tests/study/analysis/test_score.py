"""The lossless floor that a study has of itself: what makes a model fit, beside the plain one."""

import pytest

import run
from fovea.study.analysis.score import rows
from fovea.study.plan.plan import make
from fovea.study.store import Store


@pytest.fixture(scope="module")
def words(small, tmp_path_factory):
    """A sweep over settings of the model: each value has its own baseline."""
    left_out = "sweep.", "method.", "n=", "batch=", "model.steps="
    kept = [word for word in small if not word.startswith(left_out)]
    points = "[{model.quantize: none}, {model.quantize: int8, model.attention: math}]"
    own = [
        f"sweep.points={points}",
        "sweep.curve=null",
        "sweep=none",
        "method=steps",
        "method.steps=3",
        "n=2",
        "batch=1",
        "traces=0",
    ]
    return [*kept, *own, f"results={tmp_path_factory.mktemp('fitted')}", "name=x"]


@pytest.mark.usefixtures("undrawn")
def test_the_dense_cells_are_likened_to_the_plain_one(words):
    assert run.main(words) == 0
    plan = make(words)
    found = {row.cell.label: row for row in rows(plan, Store(plan.folder)) if row.cell.role == "dense"}
    assert len({row.cell.id for row in found.values()}) == 2
    plain, int8 = found.values()
    assert not plain.floor
    assert "torchao" in int8.cell.identity["packages"]
    assert "torchao" not in plain.cell.identity["packages"]
    assert list(int8.floor) == ["quantize none, attention auto"]
    assert 20 < int8.floor["quantize none, attention auto"]["psnr"].value < 100
    table = (plan.folder / "table.md").read_text()
    assert f"{int8.cell.label} against itself with quantize none, attention auto: psnr " in table
    assert "model.quantize=int8: likeness and speedup are to the dense model quantised alike" in table

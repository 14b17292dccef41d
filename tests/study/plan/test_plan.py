"""A sweep as cells, and what makes two cells the same."""

import shutil

import pytest

from fovea.study.config.compose import load, whole
from fovea.study.plan import fingerprint
from fovea.study.plan.plan import make


@pytest.fixture
def plan(weights, prompts):
    return lambda *overrides: make(
        [f"model.path={weights}", f"prompts={prompts}", "model.steps=20", *overrides]
    )


def labels(plan):
    return [cell.label for cell in plan.cells]


def test_the_default_sweep_has_the_baseline_and_the_step_reduction_curve(plan):
    ratios = [f"ras ratio={r}" for r in (1.0, 0.75, 0.5, 0.25, 0.125)]
    found = plan("model=lumina_tiny")
    assert labels(found) == ["dense", *ratios, "15 steps", "10 steps", "7 steps", "5 steps"]
    assert {cell.dense for cell in found.cells} == {found.cells[0].id}


def test_curve_as_steps_as_nothing_and_without_what_reduces_nothing(plan):
    assert labels(plan("sweep=none", "sweep.curve=[12,0.5,1.0,20]"))[2:] == ["12 steps", "10 steps"]
    assert labels(plan("sweep=none", "sweep.curve=null")) == ["dense", "ras"]


def test_a_product_of_axes_over_groups_and_keys(plan):
    found = plan("method=ras,random", "sweep.grid.method.ratio=[0.5,0.25]", "sweep.curve=null")
    assert {"ras ratio=0.5", "random ratio=0.25"} < set(labels(found))
    assert len(found.cells) == 5


def test_a_swept_number_of_steps_keeps_one_baseline(plan):
    found = plan("sweep=none", "sweep.grid.model.steps=[10,8]", "sweep.curve=null")
    assert labels(found) == ["dense", "ras steps=10", "ras steps=8"]
    assert [cell.method["steps"] for cell in found.cells] == [20, 10, 8]


def test_a_swept_size_has_a_baseline_each(plan):
    found = plan("sweep=none", "sweep.grid.model.height=[64,128]", "sweep.curve=null")
    assert sorted(cell.role for cell in found.cells) == ["dense", "dense", "method", "method"]
    assert all(by_id(found, cell.dense).model["height"] == cell.model["height"] for cell in found.cells)


def by_id(plan, name):
    return next(cell for cell in plan.cells if cell.id == name)


def test_identical_cells_collapse(plan):
    assert len(plan("sweep.grid.method.ratio=[0.5,0.5,0.50]", "sweep.curve=null").cells) == 2
    assert len(plan("sweep=none", "method=baseline", "sweep.curve=null").cells) == 1


def test_identity_ignores_what_does_not_touch_results(plan):
    same = (
        plan("sweep=none"),
        plan("sweep=none", "n=2"),
        plan("sweep=none", "seeds=[3]"),
        plan("sweep=none", "name=x"),
    )
    assert len({tuple(cell.id for cell in p.cells) for p in same}) == 1
    assert plan("sweep=none", "method.starvation=0.1").cells == plan("sweep=none").cells  # a default, said


@pytest.mark.parametrize(
    "override", ["method.ratio=0.4", "model.guidance=3", "model.height=64", "batch=3", "model.dtype=bfloat16"]
)
def test_identity_follows_what_does(plan, override):
    assert plan("sweep=none").cells[1].id != plan("sweep=none", override).cells[1].id


def test_identity_follows_the_weights(weights, tmp_path):
    copy = shutil.copytree(weights, tmp_path / "copy")
    assert fingerprint.folder(copy) == fingerprint.folder(weights)
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    (tmp_path / "other").mkdir()
    other = shutil.copytree(copy, tmp_path / "other" / "copy")
    (other / "transformer" / file.name).write_bytes(data)
    assert fingerprint.folder(other) != fingerprint.folder(weights)


def test_identity_follows_the_code_but_not_its_comments(monkeypatch, tmp_path):
    for name in ("models", "methods"):
        (tmp_path / name).mkdir()
    (tmp_path / "methods" / "mine.py").write_text("from fovea.methods.part import x\n")
    (tmp_path / "methods" / "other.py").write_text("y = 1\n")
    part = tmp_path / "methods" / "part.py"
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    found = []
    for text in ("x = 1\n", "x = 1  # why\n", "x = 2\n"):
        part.write_text(text)
        fingerprint.code.cache_clear()
        found.append(fingerprint.code("fovea.methods.mine"))
    (tmp_path / "methods" / "other.py").write_text("y = 2\n")
    fingerprint.code.cache_clear()
    assert found[0] == found[1] != found[2] == fingerprint.code("fovea.methods.mine")
    fingerprint.code.cache_clear()


def test_samples_outlive_their_order(plan):
    assert [s.key for s in plan("n=2").samples] == [s.key for s in plan("n=4").samples[:2]]
    both = plan("n=2", "seeds=[0,1]").samples
    assert [s.key for s in both[:2]] == [s.key for s in plan("n=2").samples]
    assert len({s.key for s in both}) == 4


def test_an_oracle_is_a_diagnosis_and_says_so_wherever_it_stands(plan):
    found = plan("method.selection=std,random,oracle", "sweep.grid={}", "sweep=none", "sweep.curve=null")
    roles = {cell.label: cell.role for cell in found.cells}
    assert roles.pop("dense") == "dense"
    assert sorted(roles.values()) == ["diagnosis", "method", "method"]
    assert all(("(diagnosis)" in label) == (role == "diagnosis") for label, role in roles.items())
    inside = plan("method=ralu_ras", "method.last.selection=oracle", "sweep=none", "sweep.curve=null")
    assert [cell.role for cell in inside.cells] == ["dense", "diagnosis"]


def test_which_end_of_the_ranking_runs_is_the_models_unless_said():
    ends = {
        "lumina_tiny": 0.0, "flux_tiny": 1.0, "sd3_tiny": 1.0,  # calibrated
        "lumina": 1.0, "sd3": 0.3,  # the authors' scripts
        "flux": 1.0, "sd35": 1.0,  # the paper
    }  # fmt: skip
    for model, end in ends.items():
        config = whole(load([f"model={model}", "method=ras"]))
        assert config["method"]["high_ratio"] == end
    assert (
        whole(load(["model=lumina_tiny", "method=ras", "method.high_ratio=1"]))["method"]["high_ratio"] == 1
    )

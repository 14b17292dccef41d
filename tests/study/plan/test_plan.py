"""A sweep as cells, and what makes two cells the same."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from fovea.models import Checkpoint
from fovea.study.commands.run import foreseen
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.plan import fingerprint
from fovea.study.plan.plan import cell_of, make
from fovea.study.run.provenance import described
from tests.pipelines import PIPELINES, saved


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


def test_where_the_schedule_depends_on_the_steps_the_curve_says_which_it_takes(prompts, tmp_path):
    folder, steps = saved(PIPELINES["qwen"](), tmp_path), ["model.steps=20", "sweep.curve=[0.5]"]
    given = ["sweep=none", "model=qwen_image", f"model.path={folder}", f"prompts={prompts}", *steps]
    assert labels(make(given))[2:] == ["10 steps, schedule own"]
    found = make([*given, "sweep.schedule=held"])
    assert labels(found)[2:] == ["10 steps, schedule held"]
    assert found.cells[2].method["schedule"] == "held"


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


def test_rows_of_one_name_cannot_be(plan):
    """What is swept of the model stands in the names of the baselines, too, where it tells them apart."""
    for value in ("model.height=64,128", "model.dtype=float32,bfloat16", "model.negative='a b',c"):
        found = plan("sweep=none", value, "sweep.curve=[0.5]")
        assert len(set(labels(found))) == len(found.cells) == 6
    assert labels(found)[::2] == ["dense negative=a b", "ras negative=a b", "10 steps negative=a b"]
    assert {cell.series for cell in found.cells if cell.role == "steps"} == {
        "step reduction negative=a b",
        "step reduction negative=c",
    }
    found = plan("method=ralu_caching", "cache=taylorseer_w2,delta_dit", "sweep=none", "sweep.curve=null")
    assert labels(found)[1:] == ["ralu_caching taylorseer_w2", "ralu_caching delta_dit"]


def test_a_label_is_what_a_point_is_called_and_the_grid_follows(plan):
    found = plan("sweep=none", "sweep.points=[{label: 5}]", "method.ratio=0.5,0.25", "sweep.curve=null")
    assert labels(found)[1:] == ["5 ratio=0.5", "5 ratio=0.25"]


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ("{method.ratio: 0.5, label: a}, {method.ratio: 0.25, label: a}", "two cells would be called 'a'"),
        ("{method.ratio: 0.5, label: dense}", "two cells would be called 'dense'"),
        ("{method.ratio: 0.5, label: 10 steps}", "two cells would be called '10 steps'"),
        ("{label: ''}", "must be text on one line"),
        ("{label: true}", "must be text"),
        ("{label: [a]}", "must be text"),
    ],
)
def test_labels_that_name_nothing_or_two_things_are_refused(plan, points, why):
    with pytest.raises(Refused, match=why):
        plan("sweep=none", "sweep.curve=[0.5]", f"sweep.points=[{points}]")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("method.ratio=0.5,0.50", "method.ratio: 0.5 is"),
        ("method.start=1,1.0", "method.start: 1.0 is"),
        ("sweep.grid.method.ratio=[0.5,0.25,0.5]", "method.ratio: 0.5 is"),
        ("model.negative=a,'a'", "model.negative: a is"),
        ("method=ras,ras", "method: ras is"),
        ("sweep.points=[{method.ratio: 0.5},{method: {ratio: 0.5}}]", "points: {'method.ratio': 0.5} is"),
        (
            "sweep.points=[{method.ratio: 0.5, label: a},{method.ratio: 0.5}]",
            "points: {'method.ratio': 0.5} is",
        ),
        ("sweep.points=[{method.ratio: 0.5, method: {ratio: 0.25}}]", "method.ratio is"),
        ("sweep.curve=[0.5,0.75,0.5]", "curve: 0.5 is"),
    ],
)
def test_a_value_that_is_listed_twice_is_refused(plan, said, what):
    with pytest.raises(Refused, match=f"sweep: {re.escape(what)} (listed|set) twice"):
        plan("sweep=none", said)


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("sweep.points=[{method.ratio: 0.5, method.ratio: 0.25}]", "method.ratio"),
        ("sweep.points=[{label: a, method.ratio: 0.5, label: b}]", "label"),
        ("sweep.points=[{method.resets: [3,5], method.ratio: 0.5, 'method.resets': []}]", "method.resets"),
        ("+method.cache={_target_: x, a: {b: 1, b: 2}}", "b"),
    ],
)
def test_a_key_that_a_node_has_twice_is_refused(plan, said, key):
    with pytest.raises(Refused, match=f": {re.escape(key)} is set twice in one node; leave one out"):
        plan("sweep=none", said)


def test_what_only_looks_like_a_key_twice_is_not(plan):
    found = plan("sweep=none", "sweep.points=[{model.negative: 'a: b, a: c', label: a:b:a},{label: x}]")
    assert "a:b:a" in labels(found)
    found = plan("sweep=none", "sweep.grid.model.negative=[a:b,a:c]", "sweep.curve=null")
    assert [cell.model["negative"] for cell in found.cells if cell.role == "method"] == ["a:b", "a:c"]


def test_values_that_are_equal_in_python_alone_are_two(plan):
    with pytest.raises(Refused, match=r"method\.start=true: must be a number"):
        plan("sweep=none", "method.start=1,true")


LONG = "x" * 4000


@pytest.mark.parametrize(
    "said",
    [
        "method.start=" + "1" * 4000,
        "method.ratio=-" + "1" * 4000,
        f"method.{LONG}=1",
        f"sweep.grid.{LONG}=[1]",
        f"eval.margin={{{LONG}: 1}}",
        f"metric.{LONG}.a=1",
        f"{LONG}=1",
        "model.path=a" + "/x" * 1999,
        f"sweep.points=[{{label: {LONG}}}]",
        "seeds=[" + ",".join(["5"] * 1500) + "]",
        f"versus={LONG}",
    ],
)
def test_a_refusal_repeats_no_more_than_the_ends_of_a_long_value(plan, said):
    with pytest.raises(Refused) as refusal:
        plan("sweep=none", said)
    assert len(str(refusal.value)) < 1000
    assert "..." in str(refusal.value)


def test_a_long_value_is_abbreviated_in_a_label_and_two_that_look_alike_are_refused(plan):
    assert max(map(len, labels(plan("sweep=none", f"model.negative=a,{LONG}")))) < 250
    with pytest.raises(Refused, match="two cells would be called"):
        plan("sweep=none", f"model.negative={LONG},{LONG}y")


def test_a_points_settings_are_filled_in_at_its_own_model(plan):
    point = "{method: caching, cache: magcache, method.cache.threshold: '${model.magcache.fourfold}'}"
    found = plan(
        "model.magcache.fourfold=0.5,0.25", "sweep=none", f"sweep.points=[{point}]", "sweep.curve=null"
    )
    assert [cell.method["cache"]["threshold"] for cell in found.cells if cell.role == "method"] == [0.5, 0.25]


def test_a_points_list_from_the_model_is_plain_data(plan):
    """As a record of the study has to be."""
    point = (
        "{method: multistep, method.nodes: '${model.multistep.fourfold.nodes}', "
        "method.weights: '${model.multistep.fourfold.weights}'}"
    )
    found = plan("model=lumina_tiny", "sweep=none", f"sweep.points=[{point}]", "sweep.curve=null")
    (cell,) = [cell for cell in found.cells if cell.role == "method"]
    assert type(cell.axes["method.nodes"]) is list
    json.dumps(cell.axes)


def test_a_points_values_are_set_in_the_config_only_where_they_refer_to_it(plan, monkeypatch):
    """Which takes a hundred times as long as setting them on the method: two minutes for 10,000 points."""
    told = []
    monkeypatch.setattr("fovea.study.plan.cells.set_key", lambda *given: told.append(given[1:]))
    grid = ["method=ras", "sweep=none", "sweep.curve=[]", "method.ratio=0.25,0.5", "method.high_ratio=0,1"]
    assert len(plan(*grid).cells) == 5
    assert told == []
    monkeypatch.undo()
    referring = plan(
        "method=ras", "sweep.curve=[]", "sweep=none", "sweep.grid.method.steps=['${model.steps}']"
    )
    assert [cell.method["steps"] for cell in referring.cells if cell.role == "method"] == [20]


def test_what_is_wrong_with_the_method_is_mended_by_a_point(plan):
    assert labels(plan("method.start=30", "sweep=none", "sweep.curve=null", "method.steps=40,50"))[1:] == [
        "ras steps=40",
        "ras steps=50",
    ]


def by_id(plan, name):
    return next(cell for cell in plan.cells if cell.id == name)


def test_identical_cells_collapse(plan):
    found = plan("sweep=none", "method=random,baseline", "sweep.curve=null")
    assert [cell.role for cell in found.cells] == ["dense", "method"]
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
    "spellings",
    [
        ("method.resets=[9,7]", "method.resets=[7,9,9]"),
        ("model.dtype=auto", "model.dtype=float32"),
        ("model.device=auto", "model.device=cpu"),
        ("model.path=assets/lumina_tiny", "model.path=./assets/lumina_tiny/"),
        ("method.ratio=1", "method.ratio=1.0"),
    ],
)
def test_two_spellings_of_a_setting_are_one_cell(prompts, spellings, monkeypatch):
    monkeypatch.setattr(fingerprint, "has_gpu", lambda: False)
    monkeypatch.setattr(fingerprint, "machine", lambda _: "a processor")
    found = [make([said, "model=lumina_tiny", "sweep=none", f"prompts={prompts}"]) for said in spellings]
    assert found[0].cells[1].id == found[1].cells[1].id


def test_auto_beside_a_gpu_that_torch_cannot_use_is_float32(prompts, monkeypatch):
    monkeypatch.setattr(fingerprint, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = ["model=lumina_tiny", "sweep=none", f"prompts={prompts}"]
    auto, single, half = (
        make([*given, f"model.dtype={d}"]).cells[0].id for d in ("auto", "float32", "bfloat16")
    )
    assert auto == single != half


def test_a_copy_of_the_weights_elsewhere_gives_the_same_cells(prompts, weights, tmp_path):
    places = weights, shutil.copytree(weights, tmp_path / "copy")
    plans = [make([f"model.path={place}", f"prompts={prompts}", "sweep=none"]) for place in places]
    assert [cell.id for cell in plans[0].cells] == [cell.id for cell in plans[1].cells]


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
        "lumina_tiny": 0.0, "sd3_tiny": 0.0, "flux_tiny": 0.0,  # calibrated
        "lumina": 1.0, "sd3": 0.3,  # the authors' scripts
        "flux": 1.0, "sd35": 1.0,  # the paper
    }  # fmt: skip
    for model, end in ends.items():
        config = whole(load([f"model={model}", "method=ras"]))
        assert config["method"]["high_ratio"] == end
    assert (
        whole(load(["model=lumina_tiny", "method=ras", "method.high_ratio=1"]))["method"]["high_ratio"] == 1
    )


def test_a_baseline_that_is_not_the_model_cards_is_told(plan, monkeypatch):
    monkeypatch.setattr(Checkpoint, "check_memory", lambda *_: None)
    full = ("model=flux2_klein_base_4b", "model.weights=random", "sweep=none", "sweep.curve=[0.5]")
    told = [cell.unlike_card for cell in plan(*full).cells]
    assert told == ["steps 20 for the card's 50", "", ""]
    both = plan(*full, "model.guidance=1").cells[0].unlike_card
    assert both == "steps 20 for the card's 50, guidance 1 for the card's 4"
    assert not any(cell.unlike_card for cell in plan("model=lumina_tiny").cells)  # of which there is no card


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("conf/model").glob("*.yaml")))
def test_a_models_own_settings_are_its_cards(name):
    node = yaml.safe_load(Path(f"conf/model/{name}.yaml").read_text())
    card = node.get("card")
    assert (card is None) == name.endswith("_tiny")
    not_here = {"lumina2": {"cfg_trunc_ratio": 0.25}}.get(name, {})  # said of every baseline
    assert card is None or card == {key: node[key] for key in ("steps", "guidance")} | not_here


def test_what_a_card_has_and_the_model_here_has_not_is_told(plan, monkeypatch):
    monkeypatch.setattr(Checkpoint, "check_memory", lambda *_: None)
    full = plan("model=lumina2", "model.weights=random", "sweep=none", "sweep.curve=[0.5]")
    assert full.cells[0].unlike_card == "steps 20 for the card's 50, no cfg_trunc_ratio for the card's 0.25"


def test_a_method_that_can_save_nothing_in_few_steps_says_so_before_the_run(plan):
    few = ("model=lumina_tiny", "method.steps=4", "sweep=none", "sweep.curve=null", "method=caching")
    (told,) = foreseen(plan(*few, "cache=taylorseer", "method.cache.warmup=4"))
    assert told.endswith("can save nothing in 4 steps: all of them run, and as a no-op it counts as failed")
    assert foreseen(plan(*few, "cache=taylorseer", "method.cache.warmup=1")) == []
    assert foreseen(plan(*few, "cache=taylorseer", "method.cache.interval=1")) == []  # switched off


def test_a_sibling_is_a_row_of_its_own_model(plan, prompts):
    dense, ras, sibling = plan(
        "model=lumina_tiny", "sweep=none", "sweep.curve=null", "sibling=flux_tiny"
    ).cells
    assert (sibling.label, sibling.role, sibling.dense) == ("flux_tiny 20 steps", "sibling", dense.id)
    assert (sibling.model["family"], sibling.model["guidance"]) == ("flux", 4.0)
    assert sibling.model["height"] == ras.model["height"] == 128
    assert sibling.method["_target_"] == "fovea.methods.Baseline"
    assert sibling.model["offload"] == "none"
    with pytest.raises(Refused, match="sibling=lumina_tiny: is the model that the methods run on"):
        make(["model=lumina_tiny", "sibling=[lumina_tiny]", f"prompts={prompts}"])
    with pytest.raises(Refused, match="flux_tiny"):
        plan("model=lumina_tiny", "sibling=flux_tyni")


@pytest.mark.parametrize(
    "setting", ["offload=model", "quantize=int8", "compile=blocks", "attention=math"], ids=str
)
def test_a_sibling_is_fitted_into_memory_and_run_as_its_rival_is(plan, setting):
    key, value = setting.split("=")
    words = ("model=lumina_tiny", "sweep=none", "sweep.curve=null", "sibling=flux_tiny", f"model.{setting}")
    assert [cell.model[key] for cell in plan(*words).cells] == [value] * 3


@pytest.mark.parametrize(
    ("method", "another"),
    [("mrflow", True), ("selflift", True), ("ralu", True), ("ralu_ras", True), ("jit", False)],
)
def test_what_makes_another_image_is_told_apart(plan, method, another):
    """Switched off, it is meant to make the dense one."""
    few = ("model=lumina_tiny", "sweep=none", "sweep.curve=null", f"method={method}")
    assert [cell.another_image for cell in plan(*few).cells] == [False, another]
    if method == "selflift":
        assert [cell.another_image for cell in plan(*few, "method.low=0").cells] == [False, False]


@pytest.mark.parametrize(
    "chosen",
    [
        ("method=ras", "method.selection=oracle"),
        ("method=ralu", "sweep=none"),
        ("method=selflift", "method.low=0", "sweep=none"),
        ("method=mrflow", "sweep=none", "sibling=flux_tiny"),
    ],
)
def test_a_cell_is_the_same_when_read_back_from_the_provenance(plan, chosen):
    """Also from a study made before it was recorded that likeness does not judge a cell."""
    for cell in plan("model=lumina_tiny", *chosen).cells:
        record = json.loads(json.dumps(described(cell)))
        older = {key: value for key, value in record.items() if key != "another_image"}
        for known in (record, older):
            assert json.loads(json.dumps(described(cell_of(cell.id, known)))) == record


@pytest.mark.parametrize(
    "study", sorted(Path("results").glob("*/*/provenance.json")), ids=lambda f: f.parent.name
)
def test_cells_of_committed_studies_are_read_back(study):
    """Those that draw another image have no likeness in their tables."""
    made = [cell_of(name, record) for name, record in json.loads(study.read_text("utf-8"))["cells"].items()]
    table = pd.read_parquet(study.parent / "table.parquet").set_index("label")
    assert {cell.label for cell in made} == {*table.index}
    if "psnr" in table:
        assert table.psnr[[cell.label for cell in made if cell.another_image]].isna().all()


def test_another_upscaler_in_the_same_file_is_another_cell(plan, tmp_path):
    from safetensors.torch import save_file
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    from fovea.methods import upscaling

    file, found = tmp_path / "x2.safetensors", set()
    few = ("model=lumina_tiny", "sweep=none", "sweep.curve=null", "method=mrflow", f"method.upscaler={file}")
    for filters in (2, 3):
        weights = RRDBNet(num_filters=filters, num_blocks=1, scale=2).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
        upscaling.load.cache_clear()
        found.add(plan(*few).cells[1].id)
    assert len(found) == 2

"""A paper's printed values as data, and what stands beside them."""

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from fovea.eval import Score
from fovea.eval.facts import Facts
from fovea.eval.hpsv2 import HPSv2
from fovea.eval.interval import Interval
from fovea.study.analysis.published import FIGURES, FOLDER, Paper, Value, published, unlike
from fovea.study.analysis.row import Row
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.groups import options, read_option
from fovea.study.config.instantiate import instantiate, validated
from fovea.study.config.schema import Settings, Sweep
from fovea.study.plan.cells import Cell, cells
from fovea.study.plan.nodes import full_model
from fovea.study.plan.plan import make
from fovea.study.report.published import published_table

EXPERIMENTS = options("experiment")
FULL = {"name": "full", "models": {}, "kept": []}
TINY = {"name": "tiny", "models": {"flux": "flux_tiny"}, "kept": []}


def node(**values):
    return {"_target_": "fovea.study.analysis.published.Paper", "protocol": ["p"], "source": "s"} | values


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A made-up paper's table, and rows measured beside it."""

    def made(text, columns, rows, scale=FULL, **said):
        (tmp_path / "made.csv").write_text(text)
        monkeypatch.setattr("fovea.study.analysis.published.FOLDER", tmp_path)
        return published(node(values="made.csv", columns=columns, **said), scale, rows)

    return made


def row(label, role="method", **figures):
    cell = Cell(label, label, role, label, {}, {"_target_": "fovea.methods.X"}, {}, "dense", False, {})
    return Row(cell, n=4, planned=4, **figures)


def test_digits_say_what_rounding_leaves_open(table):
    found = table("cell,x\na,.34\nb,25\nc,-0.180\nd,2991.0\n", {"x": {"of": "speedup"}}, []).rows
    bounds = [(values["x"].low, values["x"].high) for values in found.values()]
    expected = [(0.335, 0.345), (24.5, 25.5), (-0.1805, -0.1795), (2990.95, 2991.05)]
    assert bounds == [pytest.approx(pair) for pair in expected]


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(0.2, 0.336, True), (0.344, 0.5, True), (0.2, 0.33, False), (0.35, 1, False)],
)
def test_inside_is_where_the_measured_interval_meets_what_was_printed(table, low, high, inside):
    measured = row("a", speedup=Interval((low + high) / 2, low, high, 0.95))
    value = table("cell,x\na,.34\n", {"x": {"of": "speedup"}}, [measured]).rows["a"]["x"]
    assert value.inside is inside
    assert value.difference == pytest.approx((low + high) / 2 - 0.34)


@pytest.mark.parametrize(("ratio", "inside"), [(2.0, True), (2.04, True), (2.06, False)])
def test_what_is_counted_is_in_or_out_by_rounding_alone(table, ratio, inside):
    value = table("cell,x\na,2.0\n", {"x": {"of": "flops_ratio"}}, [row("a", flops_ratio=ratio)]).rows["a"][
        "x"
    ]
    assert value.inside is inside


def test_an_interval_of_less_than_95_percent_tells_nothing(table):
    measured = row("a", speedup=Interval(2.0, 1.0, 3.0, 0.5))
    value = table("cell,x\na,2.0\n", {"x": {"of": "speedup"}}, [measured]).rows["a"]["x"]
    assert (value.inside, value.difference) == (None, 0.0)


def test_a_stand_ins_ratio_has_a_difference_but_is_not_judged_and_its_size_has_neither(table):
    columns = {"TFLOPs": {"of": "teraflops"}, "speed": {"of": "flops_ratio"}}
    measured = row("a", flops=1e11, flops_ratio=2.0)
    found = table("cell,TFLOPs,speed\na,351.66,2.0\n", columns, [measured], TINY).rows["a"]
    assert (found["TFLOPs"].difference, found["TFLOPs"].inside) == (None, None)
    assert (found["speed"].difference, found["speed"].inside) == (0.0, None)


@pytest.mark.parametrize(("mine", "dense"), [(0.34, 0.11), (1.45, 1.01), (0.05, 9.0), (2.0, 0.05)])
def test_a_ratio_to_dense_has_the_rounding_of_both(table, mine, dense):
    columns = {"r": {"of": "speedup", "over_dense": "v"}}
    value = table(f"cell,v\ndense,{dense:.2f}\na,{mine:.2f}\n", columns, []).rows["a"]["r"]
    corners = [(mine + a) / (dense + b) for a, b in product((-0.005, 0.005), repeat=2)]
    assert (value.low, value.high) == pytest.approx((min(corners), max(corners)))


def test_dense_over_dense_is_one(table):
    found = table("cell,v\ndense,.11\na,.33\n", {"r": {"of": "speedup", "over_dense": "v"}}, []).rows
    assert (found["dense"]["r"].low, found["dense"]["r"].high) == (1.0, 1.0)
    assert found["a"]["r"].text == "3.00"


def test_the_dense_row_is_that_of_the_same_model(table):
    text = "model,cell,v\nx,dense,1\nx,a,2\ny,dense,4\ny,a,2\nz,a,2\n"
    found = table(text, {"r": {"of": "speedup", "over_dense": "v"}}, []).rows
    assert {label: v["r"].text for label, v in found.items() if "r" in v} == {
        **{"x dense": "1.00", "x a": "2.00"},
        **{"y dense": "1.00", "y a": "0.50"},
    }


def test_units_are_the_papers(table):
    score = Score("hpsv2[v2.1]", HPSv2.facts, 26.0, 0.5, 4, per_image=(25.0, 26.0, 26.0, 27.0))
    columns = {"HPS": {"of": "hpsv2[v2.1]", "times": 100}}
    value = table("cell,HPS\na,.26\n", columns, [row("a", scores={score.name: score})]).rows["a"]["HPS"]
    assert value.measured.value == pytest.approx(0.26)
    assert value.inside


def test_what_is_not_measured_says_why(table):
    text = "cell,x,GenEval,note\na,1,.5,\nb,2,.6,needs attention maps\nc,3,.7,\n"
    found = table(text, {"x": {"of": "fid[clean]"}, "GenEval": {}}, [row("a")])
    assert {r: v["x"].why for r, v in found.rows.items()} == {
        "a": "fid[clean] was not measured in this run",
        "b": "needs attention maps",
        "c": "no cell of this run",
    }
    assert {v["GenEval"].why for v in found.rows.values()} == {"Fovea has no such metric"}


def of_model(name, *overrides):
    config = whole(load([f"model={name}", *overrides]))
    return full_model(config["model"])[0]


@pytest.mark.parametrize("name", options("model"))
def test_a_model_is_the_papers_from_any_place_and_another_with_other_settings(name):
    files = {other: read_option("model", other) for other in options("model")}
    own = of_model(name)
    assert unlike(name, own, files) == ""
    assert unlike(name, own | {"path": "/a/copy", "weights": "random", "dtype": "bfloat16"}, files) == ""
    steps = own["steps"]
    assert unlike(name, own | {"steps": steps + 1}, files) == f"steps {steps + 1} for {steps}"
    other = next(o for o in files if files[o]["path"] != files[name]["path"])
    assert unlike(name, own | {"path": files[other]["path"]}, files) == f"{other} for {name}"


def test_another_model_than_the_papers_is_not_judged(table):
    """As with model=flux_tiny: neither its ratios nor, by as much as a difference, its times and FLOPs."""
    text = "model,cell,GB,speed\nflux,a,2,3\nflux,b,2,3\n"
    columns = {"GB": {"of": "memory_gib"}, "speed": {"of": "flops_ratio"}}
    rows = [row(f"flux {label}", memory=2 * 2**30, flops_ratio=3.0) for label in "ab"]
    models = of_model("flux"), of_model("flux_tiny")
    rows = [replace(r, cell=replace(r.cell, model=m)) for r, m in zip(rows, models, strict=True)]
    found = table(text, columns, rows)
    a, b = found.rows["flux a"], found.rows["flux b"]
    assert (a["GB"].inside, a["GB"].difference, a["speed"].inside) == (True, 0, True)
    assert (b["GB"].inside, b["GB"].difference, b["speed"].inside) == (None, None, None)
    assert b["speed"].difference == 0
    assert list(found.unlike) == ["flux b"]
    assert found.unlike["flux b"].startswith("flux_tiny for flux, height 128 for 1024, ")
    plan = SimpleNamespace(
        random_weights=False, config={"scale": FULL}, cells=[r.cell for r in rows], samples=[1]
    )
    said = "\n".join(published_table(plan, found).all_notes)
    assert "Not the paper's model as it ran it: flux_tiny for flux, height 128 for 1024, " in said


@pytest.mark.parametrize(("images", "n", "compared"), [(4, 4, True), (10_000, 4, False), (None, 4, True)])
def test_a_distance_of_another_number_of_images_is_not_compared(table, images, n, compared):
    """A Fréchet distance of few images is mostly bias; a mean of images is not."""
    facts = {"better": "lower", "high": 1e9}
    scores = {
        "fid[x]": Score("fid[x]", Facts("FID", kind="distance", biased=True, **facts), 30.0, 1.0, n),
        "niqe[x]": Score("niqe[x]", Facts("NIQE", kind="preference", **facts), 6.0, 1.0, n),
    }
    columns = {"FID": {"of": "fid[x]"}, "NIQE": {"of": "niqe[x]"}}
    found = table("cell,FID,NIQE\na,30.0,6.0\n", columns, [row("a", scores=scores)], images=images)
    distance, mean = found.rows["a"]["FID"], found.rows["a"]["NIQE"]
    assert (distance.difference, distance.inside) == ((0.0, True) if compared else (None, None))
    assert (mean.difference, mean.inside) == (0.0, True)
    plan = SimpleNamespace(random_weights=False, config={"scale": FULL}, cells=[], samples=[1])
    said = "\n".join(published_table(plan, found).all_notes)
    assert (
        "FID: not compared, as such a score depends on the number of images, 10,000" in said
    ) is not compared


def test_every_experiment_of_one_model_names_it():
    for name in EXPERIMENTS:
        paper = instantiate(whole(load([f"experiment={name}"]))["paper"], "paper", "fovea.study")
        picked = load([f"experiment={name}"]).picked["model"]
        assert paper.model == (None if "model" in paper.lines()[0] else picked)


def test_a_stand_in_is_found_under_its_own_name(table):
    found = table("model,cell,x\nflux,a,1\nsd3,a,1\n", {"x": {"of": "speedup"}}, [], TINY).rows
    assert list(found) == ["flux (tiny) a", "sd3 a"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("x\n1\n", "column `cell`"), ("cell,y\na,1\n", "has cell, y"), ("cell,x\na,1.2.3\n", "no number")],
)
def test_a_broken_table_is_refused(table, text, why):
    with pytest.raises((Refused, ValueError), match=why):
        table(text, {"x": {"of": "speedup"}}, [])


def test_text_and_notes(table):
    rows = [
        row("dense", "dense", speedup=Interval(1, 1, 1, 0.95)),
        row("a", speedup=Interval(2, 1.9, 2.1, 0.95)),
    ]
    made = table(
        "cell,x,G,note\ndense,1.00,.5,\na,2.05,.6,\nb,9,,is not here\n",
        {"x": {"of": "speedup"}, "G": {}},
        rows,
    )
    for random, scale in ((False, FULL), (True, TINY)):
        cell = SimpleNamespace(model={"path": "assets/sd3_tiny"})
        plan = SimpleNamespace(random_weights=random, config={"scale": scale}, cells=[cell], samples=[1, 2])
        shown = published_table(plan, made)
        said = "\n".join(shown.all_notes)
        assert "‡ b: is not here." in said
        assert "Measured: sd3_tiny; 2 images a cell." in said
        assert "G: Fovea has no such metric." in said
        assert ("RANDOM WEIGHTS" in said) is random
        assert ("embedded models stand in" in said) is (scale is TINY)
    assert shown.lines() == [
        ["cell", "x, published", "measured", "Δ", "G, published"],
        ["dense", "1.00", "1.000", "+0.000 in", ".5"],
        ["a", "2.05", "2.000 [1.900, 2.100]", "−0.050 in", ".6"],
        ["b ‡", "9", "–", "–", "–"],
    ]


@pytest.fixture(scope="module")
def scores():
    """That any metric of conf/metric gives."""
    found = whole(load([f"metric=[{','.join(options('metric'))}]"]))["metric"]
    return {score for name, node in found.items() for score in instantiate(node, name, "fovea.eval").scores}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_every_row_of_every_experiment_is_a_cell_or_says_why_not(name, scale):
    overrides = [f"experiment={name}", f"scale={scale}", "model.weights=random" if scale == "full" else "n=2"]
    config = whole(load(overrides))
    made = cells(overrides, validated(Sweep, config["sweep"]), Settings(prompts=config["prompts"]))
    labels = [cell.label for cell in made]
    assert len(set(labels)) == len(labels)
    rows = [Row(cell, n=0, planned=1) for cell in made]
    found = published(config["paper"], config["scale"], rows)
    assert {label for label in found.rows if label not in found.notes} <= set(labels)
    assert not set(found.notes) & set(labels)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_what_it_is(name, scores):
    paper: Paper = instantiate(whole(load([f"experiment={name}"]))["paper"], "paper", "fovea.study")
    assert paper.needs
    assert "arXiv" in paper.source
    assert {c.of for c in paper.columns.values() if c.of} <= {*FIGURES, *scores}
    head = (FOLDER / f"{name}.yaml").read_text().partition("defaults:")[0]
    assert f"python run.py experiment={name} scale=tiny" in head
    assert "Expected" in head
    with open(FOLDER / f"{name}.csv", newline="") as file:
        known = set(csv.DictReader(file).fieldnames or ())
    assert known == {"cell"} | (known & {"model", "note", "version"}) | {
        c for c in paper.columns if c in known
    }


def test_what_two_files_print_of_the_same_version_of_a_paper_is_the_same():
    """Table 2 of version 2 of RAS, and its rows among those of version 1's full table."""

    def lines(name):
        with open(FOLDER / name, newline="") as file:
            return list(csv.DictReader(file))

    grid = {line.pop("cell"): line for line in lines("ras_lumina_grid.csv")}
    later = [line for line in lines("ras_table1.csv") if line.pop("model") == "lumina"]
    same = [{"version": "v2"} | line for line in later if grid[line["cell"]]["version"] == "v2"]
    assert len(same) == 3
    for line in same:
        assert grid[line.pop("cell")] == line


def test_an_experiment_runs_at_tiny_scale_and_prints_both(tmp_path, capsys):
    import run

    command = [
        "experiment=ras_table3",
        "scale=tiny",
        "n=1",
        "batch=1",
        "metric=[psnr]",
        *("model.steps=6", "method.start=2", "method.resets=null", "sweep.curve=null"),
        *("model.height=64", "model.width=64"),
        f"results={tmp_path}",
    ]
    assert run.main(command) == 0
    folder = tmp_path / "ras_table3-tiny"
    out = capsys.readouterr().out
    assert "Published results, beside what was measured" in out
    assert "embedded models stand in" in out
    speed = pd.read_csv(folder / "published.csv").set_index("cell")
    measured = pd.read_parquet(folder / "table.parquet")
    whole = measured.set_index("label")[["seconds", "encode_seconds", "decode_seconds"]].sum(axis=1)
    assert len(speed) == 6
    speed = speed.dropna(subset="speedup")  # of dense, the paper prints the memory alone
    assert len(speed) == 4
    for label, line in speed.iterrows():
        dense = whole[f"{label.partition(')')[0]}) dense"]
        assert line["speedup_measured"] == pytest.approx(dense / whole[label])
    assert not set(speed["speedup"].astype(str)) & set(measured.astype(str).to_numpy().ravel())
    for kind in ("md", "tex", "png", "svg"):
        assert (folder / f"published.{kind}").is_file()
    panels = [text for text in ("speedup", "GB") if f">{text}<" in (folder / "published.svg").read_text()]
    assert panels == ["speedup"]  # the memory of a stand-in is not compared
    assert "Published results" in (folder / "report.html").read_text()


def test_plan_says_what_an_experiment_needs(capsys):
    import run

    assert run.main(["experiment=ralu_jsd", "scale=tiny", "plan=true"]) == 0
    assert "re-runs RALU (arXiv:2507.08422v3), Table 3" in capsys.readouterr().out


def test_scale_puts_the_embedded_model_in_place_and_keeps_what_it_should():
    config = whole(load(["model=lumina", "scale=tiny"]))
    assert config["model"]["path"] == "assets/lumina_tiny"
    assert (config["model"]["steps"], config["model"]["height"]) == (30, 128)
    assert config["model"]["ras"]["resets"] == [12, 22]
    own = yaml.safe_load(Path("conf/model/lumina_tiny.yaml").read_text())["teacache"]["twofold"]
    assert config["model"]["teacache"]["twofold"] == own  # measured on it
    assert list(config["metric"]) == ["psnr", "ssim", "fd_emoji", "clip_score_emoji"]


def test_the_command_line_has_the_last_word_over_a_scale():
    config = whole(
        load(["model=lumina", "scale=tiny", "n=3", "model.steps=9", "model.height=64", "metric=[psnr]"])
    )
    assert (config["n"], config["model"]["steps"], config["model"]["height"]) == (3, 9, 64)
    assert list(config["metric"]) == ["psnr"]


def test_an_embedded_model_is_its_own_stand_in():
    assert whole(load(["scale=tiny"]))["model"] == whole(load([]))["model"]


def test_the_name_says_experiment_and_scale():
    assert make(["experiment=ras_table1", "scale=tiny"]).name == "ras_table1-tiny"
    assert (
        make(["scale=tiny", "model=lumina", "method.resets=null", "sweep=none"]).name
        == "ras-lumina-none-tiny"
    )
    with pytest.raises(Refused, match="no such scale"):
        make(["scale=tinny"])


def test_a_value_is_read_only():
    with pytest.raises(AttributeError):
        Value("1", 1.0, 0.5, 1.5).low = 0

"""scripts/floor.py: what is no method moves the dense images by little, another seed by much."""

import json
import math

import pytest

import run
from fovea.study.analysis.score import FLOOR
from scripts import floor
from tests.pipelines import PIPELINES, saved


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tmp_path_factory.mktemp("lumina") / "study"


@pytest.fixture(scope="module")
def arguments(study):
    folder = saved(PIPELINES["lumina"](), study.parent / "weights")
    prompts = study.parent / "prompts.txt"
    prompts.write_text("a fox\ntwo red apples\na map")
    size = ["model.steps=6", "model.height=64", "model.width=64", "method.start=2", "n=3", "batch=2"]
    sweep = ["traces=0", "sweep.grid.method.ratio=[0.5]", "sweep.curve=[0.5]", "metric=[psnr,ssim]"]
    places = [f"model.path={folder}", f"prompts={prompts}", f"results={study.parent}", f"name={study.name}"]
    return [*size, *sweep, *places]


@pytest.fixture(scope="module")
def found(arguments):
    return floor.main(arguments)


def test_a_rounding_moves_little_and_another_seed_much(found):
    moved = {change: scores["psnr"].value for change, scores in found.items()}
    assert list(moved) == ["dtype bfloat16", "batches of 1", "other seeds"]
    assert moved["batches of 1"] > 60
    assert math.isfinite(moved["dtype bfloat16"])
    assert moved["dtype bfloat16"] > moved["other seeds"] + 10


def test_every_metric_is_kept_with_its_error(found, study):
    (changes,) = json.loads((study / FLOOR).read_text()).values()
    for change, scores in changes.items():
        assert {score["name"] for score in scores} == {"psnr", "identical", "ssim"}
        assert all(float(score["value"]) == found[change][score["name"]].value for score in scores)
        assert all(score["n"] == 3 and score["se"] is not None for score in scores)


def test_the_table_of_the_same_study_tells_it(found, arguments, study, capsys):
    """And its dense images are there already, while those of another dtype, batch or seed are no row of
    it."""
    assert run.main(arguments) == 0
    assert "6 images to make" in capsys.readouterr().err
    table = (study / "table.md").read_text().splitlines()
    for change, scores in found.items():
        (line,) = [line for line in table if f"dense against itself with {change}: " in line]
        assert f"psnr {scores['psnr'].value:.4g}," in line
    assert sum(line.startswith("| ") for line in table) == 2 + 3  # the head; dense, RAS, fewer steps

"""scripts/budgets.py: nearest settings on costs made up; the points of sweep=matrix lie where they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fovea.methods import Caching, JiT, Lift
from fovea.methods.caches import DeltaDiT
from fovea.models import adapt, generator
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.cells import GENERATION
from fovea.study.plan.plan import make
from scripts import budgets
from scripts.budgets import Search, ratio
from tests.pipelines import PIPELINES

COUNTED = (
    "Steps",
    "RAS",
    "Random",
    "JiT",
    "RALU",
    "Lift",
    "Multistep",
)  # evaluate a flow's velocity and no more


def test_the_number_of_steps_and_then_the_share_are_found():
    def times(settings):
        return 20 / (settings["steps"] * (0.5 + 0.5 * settings.get("ratio", 0.3)))

    found = budgets.nearest_settings(times, Search(lambda _: [], None, ratio), 20, 2.0)
    assert found["steps"] in (15, 16)
    assert times(found) == pytest.approx(2, rel=1e-3)


def test_what_stands_first_and_is_near_enough_is_taken():
    costs = {1: 2.5, 2: 1.992, 3: 2.0}
    search = Search(lambda _: [], lambda steps, target: [{"low": n} for n in costs])
    assert budgets.nearest_settings(lambda settings: costs[settings["low"]], search, 20, 2.0) == {"low": 2}
    assert budgets.nearest_settings(lambda settings: costs[settings["low"]], search, 20, 4.0) == {"low": 1}


@pytest.mark.parametrize("family", ["lumina", "flux"])
@pytest.mark.parametrize("method", [JiT(steps=6), Lift(steps=4, low=2, lift="corrected")])
def test_what_is_counted_is_what_runs(family, method):
    with adapt(PIPELINES[family]()) as model:
        options: dict[str, Any] = {"steps": 4, "height": 64, "width": 96, "max_sequence_length": 16}
        flow = model.flow(["a fox"], generators=[generator("", 0)], **options)
        counted = budgets.flops(flow, method)
        method(flow)
        assert flow.flops() == counted


@pytest.mark.parametrize("name", ["lumina_tiny", "sd3_tiny", "flux_tiny"])
def test_the_matrix_lies_at_a_half_and_a_quarter_of_the_flops(name):
    """But for what is measured on images, for what runs all tokens to know better, and for controls: those
    are their method but for one setting, and may cost a little less."""
    plan = make(["sweep=matrix", f"model={name}", "n=1"])
    node, checked = plan.cells[0].model, 0
    with adapt(instantiate(node, "model", "fovea.models").load()) as model:
        options = {key: node[key] for key in GENERATION if node[key] is not None}
        flow = model.flow([plan.samples[0].prompt.text], generators=[generator("", 0)], **options)
        dense = budgets.flops(flow, instantiate(plan.cells[0].method, "method", "fovea.methods"))
        for cell in plan.cells:
            kind, control = cell.method["_target_"].rpartition(".")[2], "method.selection" in cell.axes
            if cell.role == "method" and kind in COUNTED and not control and "method.lift" not in cell.axes:
                made = instantiate(cell.method, "method", "fovea.methods")
                share = budgets.flops(flow, made) / dense
                assert min(abs(share / budget - 1) for budget in (0.5, 0.25)) < 0.03, (cell.label, 1 / share)
                checked += 1
    assert checked > 25


def test_a_command_line_gives_lines_for_the_models_file():
    text = budgets.budgets(["model=lumina_tiny", "methods=ras,mrflow"])
    found = yaml.safe_load(text)
    assert found["ras"]["fourfold"]["steps"] == 8
    assert found["mrflow"]["twofold"]["low"] >= 12
    assert "2.00, 4.00 times fewer FLOPs" in text


def test_thresholds_are_of_the_caches_of_the_matrix():
    """With the settings that they have there, the threshold aside."""
    points = yaml.safe_load(Path("conf/sweep/matrix.yaml").read_text())["points"]
    for name in budgets.CACHES.keys() - {"dicache"}:
        settings = budgets.CACHES[name]
        own = [point for point in points if point.get("cache") == name]
        assert len(own) == len(budgets.TARGETS)
        for point in own:
            target = next(
                t for t in budgets.TARGETS if f"model.{name}.{t}" in point["method.cache.threshold"]
            )
            other = {"method", "cache", "method.cache.threshold"}
            assert [f"{key}={value}" for key, value in point.items() if key not in other] == [*settings]
            assert target in budgets.TARGETS


def test_what_blocks_cost_is_counted_without_them():
    """Delta-DiT on a flow that runs and on one that does not."""
    with adapt(PIPELINES["sd3"]()) as model:
        options: dict[str, Any] = {"steps": 6, "height": 64, "width": 96, "max_sequence_length": 16}
        flow = model.flow(["a fox"], generators=[generator("", 0)], **options)
        method = budgets.with_settings(Caching(DeltaDiT(share=0.5), steps=6), {"interval": 3})
        counted = budgets.flops(flow, method)
        method(flow)
        assert flow.flops() == counted < budgets.flops(flow, Caching(DeltaDiT(interval=1), steps=6))


def test_an_unknown_method_is_refused():
    with pytest.raises(Refused, match="methods=raz: must be of ras, "):
        budgets.budgets(["model=lumina_tiny", "methods=raz"])


def test_too_few_steps_for_a_quarter_of_them_are_refused():
    with pytest.raises(Refused, match=r"model\.steps=6: too few to spend a quarter of; at least 8"):
        budgets.budgets(["model=lumina_tiny", "model.steps=6", "methods=ras"])


def test_nothing_is_evaluated():
    """The velocity that the methods see is 0, and the picture black."""
    with adapt(PIPELINES["sd3"]()) as model:
        idle, grid = budgets.idle(model.pipeline, budgets.IdlePipeline), model.grid(64, 96)
        x = model.noise([generator("", 0)], grid)
        images = idle.decode(x, grid)
        assert torch.equal(images, torch.zeros(1, 3, 64, 96))
        assert idle.encode_raw(images).shape == x.shape


def test_dicache_has_the_settings_of_its_own_sweep():
    points = yaml.safe_load(Path("conf/sweep/freqca_dicache.yaml").read_text())["points"]
    own = [point for point in points if point.get("cache") == "dicache"]
    aligned = {
        "method.cache.retention": 0.1,
        "method.cache.threshold": "${oc.select:model.dicache.twofold,0.4}",
    }
    common = {"method": "caching", "cache": "dicache"}
    assert own == [common | aligned, common | aligned | {"method.cache.align": False}]
    assert budgets.CACHES["dicache"] == ("method.cache.retention=0.1",)

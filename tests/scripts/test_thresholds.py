"""scripts/thresholds.py: bisection on steps made up, and on a tiny pipeline from its command line."""

import pytest
import yaml

from fovea.study.config.errors import Refused
from scripts import thresholds
from scripts.thresholds import Trial
from tests import pipelines
from tests.pipelines import PIPELINES

STAIRS = {0.0517: 1.05, 0.11: 1.4, 0.2222: 2.0, 0.9: 3.1, 5.0: 4.4}


def stairs(threshold):
    return Trial(max([1.0, *(times for t, times in STAIRS.items() if threshold >= t)]), 30 - threshold)


@pytest.mark.parametrize(("target", "expected"), [(1.01, 0.0517), (2.0, 0.223), (3.0, 0.9), (4.0, 5.0)])
def test_the_smallest_threshold_is_found_to_three_digits(target, expected):
    assert thresholds.smallest_reaching(lambda t: stairs(t).times, target) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "times"), [(2.0, 2.0), (3.0, 3.1), (3.7, 3.1), (3.9, 4.4)])
def test_the_nearer_side_of_a_jump_is_found(target, times):
    found = thresholds.nearest(lambda t: stairs(t).times, target, 0.0517)
    assert stairs(found).times == times


def test_a_smooth_rise_is_met_within_a_hundredth_in_a_few_runs():
    tried = []

    def times(threshold):
        tried.append(threshold)
        return 1 + threshold**0.7

    assert times(thresholds.nearest(times, 4.0, 0.03)) == pytest.approx(4, rel=0.01)
    assert len(set(tried)) < 12


def test_out_of_reach_is_the_smallest_with_the_most():
    assert thresholds.smallest_reaching(lambda t: stairs(t).times, 4.5) is None
    found, tried = thresholds.search(lambda t: Trial(min(stairs(t).times, 3.1), 20.0))
    assert tried[found["twofold"]].times == 2.0
    assert tried[found["fourfold"]].times == 3.1
    assert found["fourfold"] < 2
    settings, remark = thresholds.entry(found, tried)
    assert [*settings] == ["twofold", "fourfold"]
    assert remark == (
        "2.00, 3.10 times fewer FLOPs, latents 20.0, 20.0 dB near to dense; below 0.0517 nothing is skipped"
    )


def test_the_dense_run_tells_the_smallest_that_skips():
    """It has to exceed what was compared, to three digits."""
    assert [thresholds.next_above(least) for least in (0.05165, 0.051, 9.997)] == [0.0517, 0.0511, 10.0]
    found, _ = thresholds.search(lambda t: Trial(stairs(t).times, 30.0, 0.05165 if t == 0 else None))
    assert found["smallest"] == 0.0517


def test_a_cache_that_never_skips_is_told():
    settings, remark = thresholds.entry(*thresholds.search(lambda t: Trial(1.0, 99.0)))
    assert (settings, remark) == ({}, "nothing is skipped at any threshold up to 16")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = pipelines.saved(PIPELINES["flux"](), tmp_path_factory.mktemp("flux"))
    (folder / "prompts.txt").write_text("a fox\na map")
    size = ["model.height=64", "model.width=64", "model.steps=8", "model.guidance=3.5", "n=2"]
    return ["model=flux_tiny", f"model.path={folder}", f"prompts={folder / 'prompts.txt'}", *size]


def test_a_command_line_gives_lines_for_the_models_file(saved):
    text = thresholds.thresholds([*saved, "cache=seacache"])
    assert 0 < yaml.safe_load(text)["seacache"]["twofold"] < 2
    smallest = float(text.partition("below ")[2].partition(" nothing")[0])
    lines = [line.split()[1:3] for line in text.splitlines() if line.startswith("#   ")]
    assert {float(times) for threshold, times in lines if float(threshold) < smallest} <= {1.0}


@pytest.mark.parametrize(("cache", "message"), [("fora", "no threshold"), ("seacach", "seacache")])
def test_a_wrong_cache_is_refused(saved, cache, message):
    with pytest.raises(Refused, match=message):
        thresholds.thresholds([*saved, f"cache={cache}"])

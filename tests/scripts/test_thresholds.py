"""scripts/thresholds.py: bisection on steps made up, and on a tiny pipeline from its command line."""

import pytest
import yaml

from fovea.study.config.errors import Refused
from scripts import thresholds
from scripts.thresholds import Tried
from tests import pipelines
from tests.pipelines import PIPELINES

STAIRS = {0.0517: 1.05, 0.11: 1.4, 0.2222: 2.0, 0.9: 3.1, 5.0: 4.4}


def stairs(threshold):
    return Tried(max([1.0, *(times for t, times in STAIRS.items() if threshold >= t)]), 30 - threshold)


@pytest.mark.parametrize(("target", "expected"), [(1.01, 0.0517), (2.0, 0.223), (3.0, 0.9), (4.0, 5.0)])
def test_the_smallest_threshold_is_found_to_three_digits(target, expected):
    assert thresholds.reached(lambda t: stairs(t).times, target) == pytest.approx(expected)


def test_what_is_out_of_reach_is_told():
    assert thresholds.reached(lambda t: stairs(t).times, 4.5) is None
    found, tried = thresholds.search(lambda t: Tried(min(stairs(t).times, 3.1), 20.0))
    text = thresholds.fragment("seacache", found, tried, "command")
    assert yaml.safe_load(text) == {"seacache": {"twofold": 0.223}}
    assert "fourfold is out of reach: 3.10 times at most" in text
    assert "below 0.0517 nothing is skipped" in text


def test_a_cache_that_never_skips_is_told():
    text = thresholds.fragment("seacache", *thresholds.search(lambda t: Tried(1.0, 99.0)), "command")
    assert "nothing is skipped at any threshold" in text
    assert yaml.safe_load(text) is None


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = pipelines.saved(PIPELINES["flux"](), tmp_path_factory.mktemp("flux"))
    (folder / "prompts.txt").write_text("a fox\na map")
    size = ["model.height=64", "model.width=64", "model.steps=8", "model.guidance=3.5", "n=2"]
    return ["model=flux_tiny", f"model.path={folder}", f"prompts={folder / 'prompts.txt'}", *size]


def test_a_command_line_gives_lines_for_the_models_file(saved):
    text = thresholds.thresholds([*saved, "cache=seacache"])
    assert 0 < yaml.safe_load(text)["seacache"]["twofold"] < 2
    assert "below" in text


@pytest.mark.parametrize(("cache", "message"), [("fora", "no threshold"), ("seacach", "seacache")])
def test_a_wrong_cache_is_refused(saved, cache, message):
    with pytest.raises(Refused, match=message):
        thresholds.thresholds([*saved, f"cache={cache}"])

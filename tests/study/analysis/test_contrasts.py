"""Pairs of cells: which are natural, what is told of them, and the claims that rest on them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fovea.eval.facts import Facts
from fovea.study.analysis.contrasts import STEPS, Each, Subject, against, controlled, how_pooled, natural
from fovea.study.config.errors import Refused
from fovea.study.report.comparisons import contrast_table, in_short

RESULTS = Path(__file__).parents[3] / "results" / "embedded"
TEXT = Facts("CLIP score", "higher", "text")
DISTANCE = Facts("FID", "lower", "distance", biased=True)
SHARED = {"steps": 20, "ratio": 0.25, "start": 4, "resets": None, "fall": 0.0, "every": 4}
RAS = {"_target_": "fovea.methods.RAS", **SHARED, "stale": "reuse", "high_ratio": 1.0, "cache": None}
RANDOM = {"_target_": "fovea.methods.Random", **SHARED}
RALU = {"_target_": "fovea.methods.RALU", "steps": 17, "selection": "edges", "cache": None, "last": None}
CACHE = {"_target_": "fovea.methods.caches.FORA", "interval": 2}
CACHING = {"_target_": "fovea.methods.Caching", "cache": CACHE, "steps": 20}
EULER = {"_target_": "fovea.methods.Steps", "steps": 10, "solver": "euler"}


def subject(label, method, cost_ratio=2.0, role="method", values=None, facts=TEXT, score="s"):
    values = np.zeros(24) if values is None else values
    keys = [f"p{i}/0" for i in range(len(values))]
    scores = {score: Each(facts, "mean", dict(zip(keys, values.tolist(), strict=True)))}
    return Subject(label, role, "dense", method, cost_ratio, scores, {key: key for key in keys})


def pairs(*subjects):
    return {(a.label, b.label): why for a, b, why in natural(subjects)}


def test_a_method_stands_beside_its_control():
    ras, random = subject("ras", RAS), subject("random", RANDOM)
    other = subject("random of half", RANDOM | {"ratio": 0.5})
    assert pairs(ras, other, random) == {("ras", "random"): "chosen or random tokens"}
    assert pairs(ras, other) == {}
    within = subject("ras random", RAS | {"selection": "random"})
    fewer = subject("fewer", RAS | {"selection": "random", "ratio": RAS["ratio"] / 2})
    aged = subject("ras edges", RAS | {"selection": "edges", "high_ratio": 0.0, "ageing": 1.0})
    assert pairs(ras, aged, within, fewer) == {
        ("ras", "ras random"): "chosen or random tokens",
        ("ras edges", "ras random"): "chosen or random tokens",
    }

    edges, blind = subject("ralu", RALU), subject("blind", RALU | {"selection": "random"})
    assert pairs(edges, blind) == {("ralu", "blind"): "chosen or random regions"}
    forecast = subject("forecast", RAS | {"stale": "taylor"})
    assert pairs(ras, forecast) == {("forecast", "ras"): "forecast or reused tokens"}
    low = subject("low", RAS | {"high_ratio": 0.0})
    assert pairs(ras, low) == {("ras", "low"): "one end of the ranking or the other"}
    run, kept = (subject(text, RAS | {"text": text}) for text in ("run", "keep"))
    more = subject("more tokens", RAS | {"text": "keep", "ratio": 0.4})
    assert pairs(run, kept, subject("random", RANDOM | {"text": "run"})) == {
        ("keep", "run"): "kept or running text",
        ("run", "random"): "chosen or random tokens",
    }
    assert pairs(run, more) == {("more tokens", "run"): "kept or running text"}


def test_a_composition_stands_beside_its_parts_and_a_cache_beside_fewer_steps():
    both, ras = subject("both", RAS | {"cache": CACHE}), subject("ras", RAS)
    cache, steps = subject("fora", CACHING), subject("10 steps", EULER, role="steps")
    assert pairs(both, ras, cache, steps) == {
        ("both", "ras"): "composition or the method alone",
        ("both", "fora"): "composition or the cache alone",
        ("fora", "10 steps"): STEPS,
    }
    kept = subject("kept text", RAS | {"text": "keep"}, both.cost_ratio)
    assert pairs(both, kept, replace(ras, cost_ratio=1.01 * both.cost_ratio))["both", "ras"]
    inside, ralu = subject("ralu_ras", RALU | {"last": RAS}), subject("ralu", RALU)
    assert pairs(inside, ralu, ras) == {
        ("ralu_ras", "ralu"): "composition or the method alone",
        ("ralu_ras", "ras"): "composition or RAS alone",
    }
    by_edges = subject("edges", RAS | {"selection": "edges"})
    other_end = subject("other end", RAS | {"high_ratio": 0.0})
    for other in (by_edges, other_end):
        assert ("ralu_ras", other.label) not in pairs(inside, ralu, other)
    assert ("both", "other end") not in pairs(both, other_end)


def test_of_several_controls_that_of_the_nearest_cost_if_it_is_near():
    cache = subject("fora", CACHING, 2.0)
    curve = [subject(f"{x}x", EULER, x, "steps") for x in (1.3, 1.9, 2.3, 4.0)]
    assert list(pairs(cache, *curve)) == [("fora", "1.9x")]
    assert pairs(cache, curve[0], curve[3]) == {}
    assert pairs(cache, replace(curve[1], dense="another")) == {}
    assert pairs(replace(cache, cost_ratio=0.0), *curve) == {}


def test_what_pairs_share_cancels_and_the_verdict_is_after_the_correction():
    prompt, rng = np.random.default_rng(0).normal(50, 20, 24), np.random.default_rng(1)
    ras = subject("ras", RAS, values=prompt + 1 + rng.normal(0, 0.3, 24))
    random = subject("random", RANDOM, values=prompt + rng.normal(0, 0.3, 24))
    (found,) = controlled([ras, random])
    assert 0.7 < found.by.low < 1 < found.by.high < 1.6  # of 20 prompt by prompt
    assert (found.verdict, found.n) == ("better", 24)
    assert found.holm == found.by.p
    (reverse,) = against([random], [ras], "ras")
    assert reverse.by.value == -found.by.value
    assert reverse.verdict == "worse"
    (distance,) = against(
        [replace(ras, scores=_as(ras, DISTANCE))], [replace(random, scores=_as(random, DISTANCE))], "random"
    )
    assert distance.verdict == "worse"
    assert replace(found, holm=0.06).verdict == "not told apart"


def _as(subject, facts):
    return {name: replace(each, facts=facts) for name, each in subject.scores.items()}


def test_a_distance_is_compared_over_the_same_images_only():
    whole, half = np.arange(24.0), np.arange(12.0)
    for facts, n in ((TEXT, 12), (DISTANCE, None)):
        a, b = (
            subject("a", RAS, values=half + 1, facts=facts),
            subject("b", RANDOM, values=whole, facts=facts),
        )
        assert [c.n for c in controlled([a, b])] == ([n] if n else [])


def test_likenesses_to_two_baselines_are_not_compared():
    """Near to the images of guidance 1 is not near to those of guidance 4; texts are judged alike."""
    likeness = Facts("SSIM", "higher", "likeness")
    for facts, told in ((TEXT, ["b", "c"]), (likeness, ["c"])):
        a, b, c = (
            subject(label, RAS, values=np.arange(24.0) + i, facts=facts) for i, label in enumerate("abc")
        )
        b = replace(b, dense="dense of b")
        assert [contrast.cell for contrast in against([a, b, c], [a, b, c], "a")] == told
    assert [contrast.cell for contrast in against([b], [a, c], "a")] == ["b"]  # in two studies


def test_one_prompt_tells_nothing():
    a, b = subject("a", RAS, values=np.ones(1)), subject("b", RANDOM, values=np.zeros(1))
    (found,) = controlled([a, b])
    assert (found.by.level, found.verdict) == (0.0, "one prompt tells nothing")
    table = contrast_table([found], False)
    assert table.lines()[1][4] == "+1.000"


def test_holm_is_over_the_pairs_of_a_question():
    rng, base = np.random.default_rng(0), np.zeros(24)
    cells = [subject(f"c{i}", CACHING, values=rng.normal(0.2, 1, 24)) for i in range(4)]
    found = against(cells, [subject("base", EULER, values=base)], "base")
    least = min(c.by.p for c in found)
    assert min(c.holm for c in found) == pytest.approx(min(1.0, 4 * least))


def test_no_such_cell():
    with pytest.raises(Refused, match="did you mean ras\\?"):
        against([], [subject("ras", RAS)], "rsa")


def test_how_values_pool():
    assert how_pooled([10.0, 20.0], 15.0) == "mean"
    assert how_pooled([10.0, 20.0], 12.5963731) == "decibel"
    assert how_pooled([10.0, 20.0], 14.0) is how_pooled([], 1.0) is None


def test_a_terminal_has_of_many_pairs_those_that_are_told_apart():
    rng, base = np.random.default_rng(0), subject("base", EULER)
    found = against(
        [subject(f"c{i}", RAS, values=rng.normal(i % 2, 0.5, 24)) for i in range(40)], [base], "base"
    )
    short = in_short(contrast_table(found, False))
    assert {row["verdict"].value for row in short.rows} == {"better"}
    assert f"{40 - len(short.rows)} more" in short.notes[-1]
    assert in_short(contrast_table(found[:5], False)) == contrast_table(found[:5], False)


def test_the_share_of_failures_that_no_image_shows_is_that_of_its_n():
    few = controlled([subject("ras", RAS, values=np.arange(24.0)), subject("random", RANDOM)])
    assert (
        "one study of 24 images in 7 has none of those that hit 7.8 %" in contrast_table(few, False).notes[-1]
    )
    assert round(100 * (1 - 7 ** (-1 / 24)), 1) == 7.8
    many = [
        subject(x.label, x.method, values=np.tile(np.arange(24.0), 9) * at)
        for at, x in enumerate([subject("random", RANDOM), subject("ras", RAS)])
    ]
    assert not any("no image shows" in note for note in contrast_table(controlled(many), False).notes)


def test_the_table_holds_what_is_told():
    rng = np.random.default_rng(0)
    found = controlled([subject("ras", RAS, values=rng.normal(1, 1, 24)), subject("random", RANDOM)])
    (record,) = contrast_table(found, False).records()
    assert (record["cell"], record["control"], record["score"]) == ("ras", "random", "s")
    assert record["difference_low"] == found[0].by.low
    assert record["p_holm"] == found[0].holm
    assert contrast_table([], False) is None
    assert "RANDOM" in contrast_table(found, True).all_notes[0]
    json.dumps(record, allow_nan=False)

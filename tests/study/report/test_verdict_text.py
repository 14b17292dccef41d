"""The verdict says what the intervals carry, and no more."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fovea.eval import Score
from fovea.eval.clipscore import CLIPScore
from fovea.eval.fid import FID
from fovea.eval.fidelity import PSNR
from fovea.eval.interval import Interval
from fovea.study.analysis.contrasts import of_rows
from fovea.study.analysis.row import Row
from fovea.study.analysis.score import without_likeness
from fovea.study.plan.cells import Cell
from fovea.study.report.page import groups
from fovea.study.report.study_table import study_table
from fovea.study.report.verdict_text import cautions, verdict

FACTS = {"psnr": PSNR.scores["psnr"], "clip_score": CLIPScore.facts}
PLAN = SimpleNamespace(random_weights=False)


def row(label, role="method", fast=2.0, **gains) -> Row:
    """gains: of a score, (value, low, high, p after Holm)."""
    cell = Cell(label, label, role, "m", {}, {"_target_": "fovea.methods.X"}, {}, "dense", False, {})
    speed = Interval(fast, fast - 0.1, fast + 0.1, 0.95)
    names = gains or {"psnr": None, "clip_score": None}
    off = Interval(1.0, 0.5, 1.5, 0.95)
    scores = {name: Score(name, FACTS[name], 20.0, 1.0, 8, tuple(range(8)), difference=off) for name in names}
    known = {name: Interval(*g[:3], 0.95, g[3]) for name, g in gains.items() if g}
    holm = {name: g[3] for name, g in gains.items() if g}
    made = Row(cell, 8, 8, speed, speed, 10.0, 1.0, fast, 1e9, scores, gain=known, gain_holm=holm)
    return made


def said(*rows, plan=PLAN) -> str:
    found = [row("dense", "dense", 1.0), *rows, row("5 steps", "steps", 3.0)]
    text = " ".join([*verdict(plan, found), *cautions(found)])
    return re.sub(r"<[^>]+>", "", text)


def test_more_flops_than_dense_are_not_called_fewer():
    assert "with 1.50× to 2.00× fewer FLOPs" in said(row("a", fast=1.5), row("b", fast=2.0))
    assert "with a FLOPs ratio of 0.50× to 2.00×, over" in said(row("a", fast=0.5), row("b", fast=2.0))


def test_what_survives_holm_is_claimed_with_its_interval():
    text = said(row("a", psnr=(4.0, 3.0, 5.0, 0.01)), row("b", psnr=(2.0, -1.0, 5.0, 0.4)))
    assert (
        "a gains most in PSNR (+4.000 [3.000, 5.000]); beyond chance by Holm’s correction for all 2" in text
    )
    assert "of 2 settings 1 is better and none worse in PSNR" in text
    assert "cannot be told" not in text


def test_an_interval_above_zero_that_holm_does_not_spare_is_no_claim():
    text = said(row("a", psnr=(4.0, 1.0, 7.0, 0.2)))
    assert "gains most" not in text
    assert (
        "above zero for a in PSNR (+4.000 [1.000, 7.000]), but among so many gains that may be chance" in text
    )


@pytest.mark.parametrize(
    ("gain", "why"),
    [
        ((1.0, -1.0, 3.0, 0.5), "every interval of the gain holds zero"),
        ((-3.0, -4.0, -2.0, 0.5), "no interval of the gain lies above zero"),
    ],
)
def test_what_cannot_be_told_is_said(gain, why):
    text = said(row("a", psnr=gain))
    assert f"Whether any setting beats step reduction at the same time in PSNR cannot be told: {why}." in text
    assert "gains most" not in text


def test_losses_are_counted():
    text = said(row("a", psnr=(-4.0, -5.0, -3.0, 0.01)), row("b", psnr=(-3.0, -5.0, -1.0, 0.04)))
    assert (
        "Against step reduction, by Holm’s correction, of 2 settings none are better and 2 worse in PSNR"
        in text
    )
    assert "gains most" not in text


def test_no_bounds_no_claim():
    nowhere = float("nan")
    bare = row("a", psnr=(4.0, 3.0, 5.0, None))
    bare = replace(bare, gain={"psnr": Interval(4.0, nowhere, nowhere, 0.0)}, gain_holm={})
    assert "cannot be told: the gain has no interval" in said(bare)


def test_a_difference_to_dense_is_told_only_after_holm():
    differs = replace(row("a", psnr=None, clip_score=None), holm={"clip_score": 0.01})
    alike = replace(row("b", psnr=None, clip_score=None), holm={"clip_score": 0.9})
    assert "From the dense images, by Holm’s correction, a differs in clip_score" in said(differs, alike)
    assert "none is shown to differ from the dense images in clip_score, nor to equal them" in said(alike)


def test_random_weights_claim_speed_alone():
    text = said(row("a", psnr=(4.0, 3.0, 5.0, 0.01)), plan=SimpleNamespace(random_weights=True))
    assert "nothing is said of their quality" in text
    assert "gains" not in text.partition("quality")[0]


def test_what_is_missing_is_told():
    bad = replace(row("<i>a</i>"), failure="OutOfMemoryError: full", n=3)
    gone = Score("fid", FID.facts, None, None, 8, unavailable="no weights", remedy="fetch them")
    half = replace(row("b"), n=5, failure="incomplete: 5 of 8 images are there", scores={"fid": gone})
    found = [row("dense", "dense", 1.0), bad, half]
    text = " ".join(cautions(found))
    assert "2 of 3 cells failed: <b>&lt;i&gt;a&lt;/i&gt;</b> and <b>b</b>." in text
    assert "FID</span> is unavailable: no weights: fetch them." in text


def test_nothing_to_compare_with_is_told():
    found = [row("dense", "dense", 1.0), row("a"), row("5 steps", "steps", 3.0)]
    assert "No gain is given for <b>a</b>" in " ".join(cautions(found))
    assert "There is no step reduction in this study" in " ".join(cautions(found[:2]))


def test_margins():
    kept = replace(row("a"), verdicts={"clip_score": "non-inferior"})
    lost = replace(row("b"), verdicts={"clip_score": "undecided"})
    whole = "Within the margin set for clip_score for certain: 1 of 2 settings; beyond it 0, undecided 1."
    assert whole in said(kept, lost)


def test_headings_stand_over_neighbours():
    found = study_table(
        [row("dense", "dense", 1.0), row("a", psnr=(4.0, 3.0, 5.0, 0.01)), row("5 steps", "steps")]
    )
    heads = [("", 1), ("cost", 3), ("quality", 2), ("gain over step reduction at the same time", 1), ("", 2)]
    assert groups(found) == heads
    assert [c.best for c in found.shown[:4]] == ["ascending" if i == 1 else "descending" for i in range(4)]


def test_a_baseline_that_is_not_its_cards_is_cautioned_of():
    dense = row("dense", "dense", 1.0)
    dense = replace(dense, cell=replace(dense.cell, unlike_card="guidance 1 for the card's 4"))
    text = re.sub(r"<[^>]+>", "", " ".join(cautions([dense, row("a", psnr=(4.0, 3.0, 5.0, 0.01))])))
    assert "dense is not the model card’s (guidance 1 for the card&#39;s 4)" in text


def rivalling(label, role, fast, scores) -> Row:
    """With the scores of eight prompts, CLIP's and a likeness to dense."""
    keys = tuple(f"k{i}" for i in range(8))
    made = row(label, role, fast)
    known = {"clip_score": Score("clip_score", FACTS["clip_score"], 20.0, 1.0, 8, tuple(scores))}
    likeness = Score("psnr", FACTS["psnr"], 30.0, 1.0, 8, tuple(range(8)))
    known |= {"psnr": without_likeness(likeness, made.cell) if role == "sibling" else likeness}
    return replace(made, scores=known, keys=keys, prompts=keys)


@pytest.mark.parametrize(
    ("better", "fast", "told"),
    [
        (5.0, 3.0, "At no higher cost flux_schnell 4 steps is better, beyond chance, than a in clip_score"),
        (0.0, 3.0, "Nothing is shown to lose to flux_schnell 4 steps, which costs no more than a."),
        (5.0, 1.5, "flux_schnell 4 steps costs more than any setting."),
    ],
)
def test_where_a_method_loses_to_a_sibling_is_said(better, fast, told):
    mine = [20.0, 21.0, 19.0, 22.0, 20.5, 18.0, 23.0, 20.0]
    other = [value + better + (-1) ** i * 0.1 for i, value in enumerate(mine)]
    sibling = rivalling("flux_schnell 4 steps", "sibling", fast, other)
    found = [rivalling("dense", "dense", 1.0, mine), rivalling("a", "method", 2.0, mine), sibling]
    assert told in re.sub(r"<[^>]+>", "", " ".join(verdict(PLAN, found)))
    assert {pair.score for pair in of_rows(found, None)} <= {"clip_score"}


def test_a_likeness_to_dense_does_not_judge_a_sibling():
    sibling = rivalling("flux_schnell 4 steps", "sibling", 3.0, range(8))
    assert sibling.scores["psnr"].value is None
    assert "another image of the prompt" in (sibling.scores["psnr"].unavailable or "")
    assert sibling.scores["clip_score"].value == 20.0

"""The gain over step reduction, by simulation and by hand; verdicts and fronts of rows."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fovea.eval import Score
from fovea.eval.clipscore import CLIPScore
from fovea.eval.fid import FID
from fovea.eval.fidelity import PSNR, SSIM
from fovea.eval.interval import Interval, median_interval
from fovea.eval.statistics import paired_difference, standard_error
from fovea.study.analysis import verdict
from fovea.study.analysis.gain import bend, line, with_gain
from fovea.study.analysis.row import Row
from fovea.study.plan.cells import Cell
from fovea.study.report.study_table import study_table


def row(name, role, shares, values, name_of="s", difference=None):
    """A cell whose batches took these shares of the dense run's time."""
    relative = {str(i): share for i, share in enumerate(shares)}
    speed = median_interval([1 / share for share in shares])
    series = "step reduction" if role == "steps" else name.split(" ")[0]
    cell = Cell(name, name, role, series, {}, {"_target_": "fovea.methods.X"}, {}, "dense", False, {})
    values = tuple(map(float, values))
    score = Score(
        name_of,
        SSIM.facts,
        float(np.mean(values)),
        standard_error(values),
        len(values),
        values,
        difference=difference,
    )
    keys = tuple(map(str, range(len(values))))
    return Row(
        cell, len(values), len(values), speed, speed, 1.0, 1.0, speed.value, 1.0, {name_of: score},
        keys=keys, relative=relative,
    )  # fmt: skip


def study(seed, quality, noise, batches=24, true_gain=0.5, at=0.42):
    """Step reduction of this quality by cost beside a method that is better by `true_gain`."""
    rng = np.random.default_rng(seed)
    n = 4 * batches
    prompt = rng.normal(size=n)

    def made(name, role, cost, extra=0.0):
        shares = cost * np.exp(rng.normal(0, noise, batches))
        return row(name, role, shares, quality(cost) + extra + prompt + rng.normal(0, 0.5, n))

    curve = [made(f"{c}", "steps", c) for c in (0.75, 0.5, 0.35, 0.25)]
    return [made("dense", "dense", 1.0), *curve, made("m", "method", at, true_gain)]


@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_gains_over_a_bent_curve_cover_also_when_times_are_noisy(noise):
    found = [with_gain(study(s, lambda c: 3 * math.log(c + 0.05), noise))[-1].gain["s"] for s in range(60)]
    assert np.mean([g.low <= 0.5 <= g.high for g in found]) >= 0.88


def test_a_cell_of_other_images_than_the_curve_has_no_gain():
    """A cell that failed half-way, on either side: figures of other prompts, or of fewer, do not compare."""
    made = study(0, lambda c: 3 * math.log(c + 0.05), 0.1)
    half = replace(made[-1], keys=made[-1].keys[:20], n=20)
    assert with_gain([*made[:-1], half])[-1].gain == {}
    assert with_gain(made)[-1].gain
    half = replace(made[2], keys=made[2].keys[:20], n=20)
    kept = with_gain([*made[:2], half, *made[3:]])[-1].gain["s"]
    assert kept == with_gain([*made[:2], *made[3:]])[-1].gain["s"]


def test_one_prompt_has_gains_and_volumes_without_bounds():
    made = [replace(r, prompts=("p",) * len(r.keys)) for r in study(0, lambda c: 3 * math.log(c + 0.05), 0.1)]
    gained = with_gain(made)
    assert math.isnan(gained[-1].gain["s"].low)
    assert gained[-1].gain["s"].p is None
    assert verdict.with_verdicts(gained, {"s": 0.5})[-1].front == {}
    assert all(record["hypervolume_low"] is None for record in verdict.volumes(gained))


def test_a_gain_at_a_time_taken_once_has_no_bounds():
    """A tenth off in that time is a multiple of the images' own error; at equal FLOPs there are bounds."""
    made = [replace(r, relative={"0": r.relative["0"]}) for r in study(0, lambda c: 4 * c, 0.1)]
    made = [replace(r, speedup=median_interval([1 / r.relative["0"]])) for r in made]
    gained = with_gain(made)
    found = gained[-1].gain["s"]
    assert (found.level, found.p) == (0.0, None)
    assert all(record["hypervolume_low"] is None for record in verdict.volumes(gained))
    (told,) = [note for note in study_table(gained).notes if note.startswith("gains of m: without")]
    assert "cost=flops" in told
    equal = [replace(r, flops_ratio=r.speedup.value, relative={}) for r in made]
    assert with_gain(equal, "flops")[-1].gain["s"].level == 0.95


def test_the_line_between_two_points():
    cost, quality = np.array([[1.0, 0.5, 0.25]]), np.array([[4.0, 3.0, 1.0]])
    assert line(np.array([0.75]), cost, quality) == pytest.approx([3.5])
    assert line(np.array([0.3]), cost, quality) == pytest.approx([1.4])


def test_a_straight_curve_does_not_bend_and_a_hollow_one_takes_from_the_gain():
    straight = np.array([0.4, 1.0, 0.5, 0.25])
    assert bend(straight, 3 * straight) == pytest.approx(0)
    assert bend(straight, np.array([0.0, 4.0, 3.5, 1.0])) < 0
    assert bend(straight[:3], np.array([0.0, 4.0, 3.5])) == 0


def test_one_incomplete_cell_is_in_no_ranking_and_takes_it_from_no_other():
    made = with_gain(study(0, lambda c: 3 * math.log(c + 0.05), 0.1))
    score = made[2].scores["s"]
    few = replace(score, n=20, per_image=score.per_image[:20], value=1e3)
    half = replace(made[2], keys=made[2].keys[:20], n=20, scores={"s": few})
    rest = [*made[:2], *made[3:]]
    beside = verdict.with_verdicts([*made[:2], half, *made[3:]], {})
    assert beside[2].front == {}
    fronts = [row.front for row in verdict.with_verdicts(rest, {})]
    assert [row.front for row in (*beside[:2], *beside[3:])] == fronts
    assert all(front["s"] >= 0 for front in fronts)
    assert verdict.volumes([*made[:2], half, *made[3:]]) == verdict.volumes(rest)


def test_an_incomplete_dense_run_is_in_no_ranking_either():
    """And does not count as better than all, as it does for a likeness to it."""
    made = with_gain(study(0, lambda c: 3 * math.log(c + 0.05), 0.0, at=1.2))
    made = [replace(r, scores={"s": replace(r.scores["s"], facts=CLIPScore.facts)}) for r in made]
    made[0] = replace(made[0], keys=made[0].keys[:20], n=20)
    judged = verdict.with_verdicts(made, {})
    assert judged[0].front == {}
    assert judged[-1].front == {"s": 1.0}


def test_no_verdict_on_a_loss_to_dense_images_that_are_not_there():
    """The margin of such a score is of the difference to dense, not of its value."""
    for value, facts in ((70.0, CLIPScore.facts), (600.0, FID.facts)):
        cell = row("m", "method", [0.5] * 6, np.full(40, value) + np.arange(40) / 100)
        cell = replace(cell, scores={"s": replace(cell.scores["s"], facts=facts)})
        assert verdict.with_verdicts([cell], {"s": 5.0})[0].verdicts == {"s": "undecided"}


def test_verdicts_by_margin_and_holm():
    rng = np.random.default_rng(0)
    dense = rng.normal(30, 1, 40)
    worse = dense - 1 + rng.normal(0, 0.1, 40)
    same = dense + rng.normal(0, 0.1, 40)
    shares = [0.5] * 6
    rows = [row("dense", "dense", [1.0] * 6, dense)] + [
        row(name, "method", shares, x, difference=paired_difference(x, dense))
        for name, x in (("worse", worse), ("same", same))
    ]
    judged = {r.cell.id: r for r in verdict.with_verdicts(rows, {"s": 0.5})}
    assert judged["worse"].verdicts["s"] == "inferior"
    assert judged["same"].verdicts["s"] == "non-inferior"
    assert judged["dense"].verdicts == {}
    assert judged["worse"].holm["s"] < 0.001
    assert judged["same"].holm["s"] > judged["worse"].holm["s"]
    assert judged["worse"].front["s"] == 0
    assert judged["same"].front["s"] == 1


def test_a_diagnosis_is_in_no_ranking_and_changes_nothing_of_the_others():
    """However good and cheap: neither its gain, nor its place, nor the count of the comparisons."""
    made = study(0, lambda c: 3 * math.log(c + 0.05), 0.1)
    values = np.array(made[-1].scores["s"].per_image)
    oracle = row("o", "diagnosis", [0.1] * 24, values + 9, difference=paired_difference(values + 9, values))
    alone, beside = (
        verdict.with_verdicts(with_gain(rows), {"s": 0.5}) for rows in (made, [*made[:3], oracle, *made[3:]])
    )
    (found,) = [r for r in beside if r.cell.id == "o"]
    assert (found.gain, found.holm, found.gain_holm, found.verdicts, found.front) == ({}, {}, {}, {}, {})
    assert [r for r in beside if r.cell.id != "o"] == alone
    assert verdict.volumes(beside) == verdict.volumes(alone)


def test_a_margin_of_a_likeness_is_its_worst_value():
    likeness = row("m", "method", [0.5] * 6, [0.96, 0.97, 0.95, 0.96], name_of="ssim")
    judged = verdict.with_verdicts([likeness], {"ssim": 0.9})[0]
    assert judged.verdicts == {"ssim": "non-inferior"}
    assert verdict.with_verdicts([likeness], {"ssim": 0.99})[0].verdicts == {"ssim": "inferior"}


def test_hypervolume_by_method_and_over_step_reduction():
    found = {r["cells"]: r for r in verdict.volumes(study(0, lambda c: 4 * c, 0.0))}
    assert set(found) == {"step reduction", "m"}
    assert found["m"]["hypervolume_low"] <= found["m"]["hypervolume"] <= found["m"]["hypervolume_high"]
    assert "over_step_reduction" in found["m"]


def test_a_cell_of_infinite_quality_costs_the_others_no_hypervolume():
    """The default study has one: RAS with every token, whose images are the dense ones."""
    rows = study(0, lambda c: 4 * c, 0.0)
    same, facts = row("m off", "method", [1.0] * 24, [1.0] * len(rows[0].keys)), PSNR.scores["psnr"]
    infinite = replace(same.scores["s"], facts=facts, value=math.inf, per_image=(math.inf,) * same.n)
    same = replace(same, scores={"s": infinite})
    assert verdict.volumes([*rows, same]) == verdict.volumes(rows)


def test_an_interval_without_p_is_no_comparison():
    rows = [row("m", "method", [0.5] * 6, [1, 2, 3], difference=Interval(1.0, 0.5, 1.5, 0.95))]
    assert verdict.with_verdicts(rows, {})[0].holm == {}

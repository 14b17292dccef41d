"""The table: the same figures in every form, markup as text, random weights marked."""

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fovea.eval import Score
from fovea.eval.fidelity import SSIM
from fovea.eval.frechet import FrechetDistance
from fovea.eval.interval import Interval
from fovea.study.analysis.gain import with_gain
from fovea.study.analysis.row import Row
from fovea.study.analysis.speed import Speed
from fovea.study.plan.cells import Cell
from fovea.study.report import formats as forms
from fovea.study.report import table
from fovea.study.report.typeset import latex, markdown


def cell(name, role, **axes):
    return Cell(
        name,
        name,
        role,
        name.split(" ")[0],
        {},
        {"_target_": "fovea.methods.X", "steps": 9},
        axes,
        "dense",
        False,
        {},
    )


def score(name, values, facts=SSIM.facts):
    values = tuple(map(float, values))
    return Score(name, facts, float(np.mean(values)), float(np.std(values)), len(values), values)


def row(name, role, fast, values, failure=None):
    scores = {
        "ssim": score("ssim", values),
        "fd[emoji]": Score("fd[emoji]", FrechetDistance.facts, None, None, 3, unavailable="no weights"),
    }
    speed = Interval(fast, fast - 0.1, fast + 0.1, 0.95)
    return Row(cell(name, role), 3, 3, speed, speed, 10.0, 1.0, fast, 1e9, scores, "time", {}, failure)


@pytest.fixture
def rows():
    hostile = r"\input{x} <b>|50% & $5_0 #1 ~^{}"
    return [
        row("dense", "dense", 1.0, [1, 1, 1]),
        row(hostile, "method", 2.0, [0.8, 1.0, 0.9]),
        row("4 steps", "steps", 1.5, [0.7, 0.8, 0.9]),
        row("3 steps", "steps", 3.0, [0.4, 0.5, 0.6], failure="OutOfMemoryError: full"),
    ]


def test_every_form_holds_the_same_figures(rows, tmp_path):
    forms.save(tmp_path, rows, [{"key": "k", "seconds": 1.0}], False)
    stored, text = pd.read_parquet(tmp_path / "table.parquet"), pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(stored.fillna(math.nan), text, check_dtype=False)
    shown = (tmp_path / "table.md").read_text().splitlines()[2:6]
    for line, (_, record) in zip(shown, stored.iterrows(), strict=True):
        assert (
            f"| {record['speedup']:.2f}× [{record['speedup_low']:.2f}, {record['speedup_high']:.2f}]" in line
        )
        if record["role"] != "dense":
            assert f"| {record['ssim']:.3f} ± {record['ssim_se']:.3f} |" in line


def test_latex_escapes_everything(rows):
    text = latex(table.cells(rows), table.notes(rows, False))
    assert (
        r"\textbackslash{}input\{x\} \textless{}b\textgreater{}\textbar{}50\% \& \$5\_0 \#1 \textasciitilde{}"
        in text
    )
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(line.count(" & ") == body[2].count(" & ") for line in body if " & " in line)
    assert "unavailable" in text
    assert r"clip\_score" not in text


def test_markdown_keeps_a_label_in_its_column(rows):
    lines = markdown(table.cells(rows), table.notes(rows, False)).splitlines()
    assert lines[3].replace(r"\|", "").count("|") == lines[0].count("|")
    assert "<b>" not in lines[3]


def test_random_weights_are_marked_everywhere(rows, tmp_path):
    forms.save(tmp_path, rows, [], True)
    for name in ("table.md", "table.tex"):
        assert "RANDOM WEIGHTS" in (tmp_path / name).read_text()
    assert pd.read_csv(tmp_path / "table.csv")["random_weights"].all()


@pytest.mark.parametrize("width", [80, 200])
def test_terminal(rows, width):
    console = Console(width=width, record=True, file=io.StringIO())
    forms.show(rows, False, console)
    text = console.export_text()
    assert "no weights" in text
    assert "OutOfMemoryError" in text
    assert ("[1.90, 2.10]" in text) == (width == 200)


def test_gain_is_over_step_reduction_at_the_same_time(rows):
    """At a speedup of 2 between 1.5 and 3, half the way in time: the curve stands at (0.8 + 0.5) / 2."""
    gained = with_gain(rows)[1].gain["ssim"]
    assert gained.value == pytest.approx(0.9 - 0.65)
    assert gained.low < gained.value < gained.high
    assert "fd[emoji]" not in with_gain(rows)[1].gain


def test_no_gain_beyond_the_curve(rows):
    far = row("far", "method", 9.0, [1, 1, 1])
    assert with_gain([rows[0], far, *rows[2:]])[1].gain == {}


def test_time_and_flops_that_disagree_are_flagged(rows):
    honest, boasting = rows[1], Row(**(vars(rows[1]) | {"flops_ratio": 2.5}))
    assert not honest.disagrees
    assert boasting.disagrees
    assert "disagree by more than 10 %" in "".join(table.notes([rows[0], boasting], False))


def test_figures():
    assert [table.figure(x) for x in (1e300, -2.5e9)] == ["1e+300", "−2.5e+09"]
    assert [table.figure(x) for x in (0.98765, 34.5678, 345.678, math.inf, -1.5)] == [
        "0.988",
        "34.57",
        "345.7",
        "∞",
        "−1.500",
    ]


def test_gain_at_equal_flops(rows):
    """FLOPs ratios of 2 between 1.5 and 3, as the speedups: the same gain, and the note says of what."""
    assert with_gain(rows, "flops")[1].gain["ssim"].value == pytest.approx(0.9 - 0.65)
    assert "step reduction at the same FLOPs" in "".join(table.notes(with_gain(rows, "flops"), False))


def test_speedups_across_runs_are_marked(rows):
    assert "‡" not in str(table.cells(rows)) + "".join(table.notes(rows, False))
    once = Interval(1.0, 1.0, 1.0, 0.0)
    apart = [rows[0], replace(rows[1], speed=Speed(once, once, None, None, None, 6, 0, 0, apart=2))]
    assert table.cells(apart)[2][2].endswith("‡")
    assert f"have changed: {rows[1].cell.label} 2." in "".join(table.notes(apart, False))

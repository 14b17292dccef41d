"""The table: the same figures in every form, markup as text, random weights marked."""

import io
import math
from dataclasses import replace
from pathlib import Path

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
from fovea.study.report.formats import latex, literal, markdown, parquet, read, save
from fovea.study.report.study_table import study_table
from fovea.study.report.table import Column, Entry, formatted
from fovea.study.report.terminal import print_table

EMBEDDED = Path(__file__).resolve().parents[3] / "results" / "embedded"


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
    save(study_table(rows), tmp_path / "table")
    stored, text = pd.read_parquet(tmp_path / "table.parquet"), pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(stored.fillna(math.nan), text, check_dtype=False)
    shown = (tmp_path / "table.md").read_text().splitlines()[2:6]
    for line, (_, record) in zip(shown, stored.iterrows(), strict=True):
        assert (
            f"| {record['speedup']:.2f}× [{record['speedup_low']:.2f}, {record['speedup_high']:.2f}]" in line
        )
        if record["role"] != "dense":
            assert f"| {record['ssim']:.3f} ± {record['ssim_se']:.3f} |" in line


def test_a_baseline_that_is_not_its_cards_is_marked(rows):
    dense = replace(rows[0], cell=replace(rows[0].cell, unlike_card="steps 28 for the card's 50"))
    text = markdown(study_table([dense, *rows[1:]]))
    assert "| dense§ |" in text
    assert "§ dense is not the model card's: steps 28 for the card's 50." in text
    assert "§" not in markdown(study_table(rows))


def test_latex_escapes_everything(rows):
    text = latex(study_table(rows))
    assert (
        r"\textbackslash{}input\{x\} \textless{}b\textgreater{}\textbar{}50\% \& \$5\_0 \#1 \textasciitilde{}"
        in text
    )
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(line.count(" & ") == body[2].count(" & ") for line in body if " & " in line)
    assert "unavailable" in text
    assert r"clip\_score" not in text


def test_markdown_keeps_a_label_in_its_column(rows):
    lines = markdown(study_table(rows)).splitlines()
    assert lines[3].replace(r"\|", "").count("|") == lines[0].count("|")
    assert "<b>" not in lines[3]


def test_random_weights_are_marked_everywhere(rows, tmp_path):
    save(study_table(rows, True), tmp_path / "table")
    for name in ("table.md", "table.tex"):
        assert "RANDOM WEIGHTS" in (tmp_path / name).read_text()
    assert pd.read_csv(tmp_path / "table.csv")["random_weights"].all()


@pytest.mark.parametrize("width", [80, 200])
def test_terminal(rows, width):
    console = Console(width=width, record=True, file=io.StringIO())
    print_table(study_table(rows), console)
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


def test_failures_that_no_image_shows_are_told_of_gains_with_an_interval(rows):
    """One prompt has none: nothing reaches as far as one more failure."""
    told = "Failures that no image shows"
    few = [replace(row, n=8) for row in with_gain(rows)]
    assert any(told in note for note in study_table(few).notes)
    gains = {name: replace(gain, level=0.0) for name, gain in few[1].gain.items()}
    without = [few[0], replace(few[1], gain=gains), *(replace(row, gain={}) for row in few[2:])]
    assert not any(told in note for note in study_table(without).notes)


def test_no_gain_beyond_the_curve(rows):
    far = row("far", "method", 9.0, [1, 1, 1])
    assert with_gain([rows[0], far, *rows[2:]])[1].gain == {}


def test_time_and_flops_that_disagree_are_flagged(rows):
    honest, boasting = rows[1], Row(**(vars(rows[1]) | {"flops_ratio": 2.5}))
    assert not honest.disagrees
    assert boasting.disagrees
    assert "disagree by more than 10 %" in "".join(study_table([rows[0], boasting]).notes)


def test_numbers():
    assert [formatted(x) for x in (0.98765, 34.5678, 345.678, math.inf, -1.5)] == [
        "0.988",
        "34.57",
        "345.7",
        "∞",
        "−1.500",
    ]


def test_gain_at_equal_flops(rows):
    """FLOPs ratios of 2 between 1.5 and 3, as the speedups: the same gain, and the note says of what."""
    assert with_gain(rows, "flops")[1].gain["ssim"].value == pytest.approx(0.9 - 0.65)
    assert "step reduction at the same FLOPs" in "".join(study_table(with_gain(rows, "flops")).notes)


def test_speedups_across_runs_are_marked(rows):
    assert "‡" not in markdown(study_table(rows))
    once = Interval(1.0, 1.0, 1.0, 0.0)
    speed = Speed(once, once, None, None, None, 6, 0, 0, apart=2)
    apart = study_table([rows[0], replace(rows[1], speed=speed)])
    assert apart.lines()[2][2].endswith("‡")
    assert f"have changed: {rows[1].cell.label} 2." in "".join(apart.notes)
    assert "of the same session" not in "".join(apart.notes)


def test_a_peak_of_memory_that_is_not_the_cells_own_is_told(rows):
    """As on macOS, where the peak of a process cannot be reset."""
    once = Interval(1.0, 1.0, 1.0, 0.0)
    for since_start in (False, True):
        speed = Speed(once, once, None, None, None, 6, 0, 0, memory_since_start=since_start)
        notes = study_table([rows[0], replace(rows[1], speed=speed)]).notes
        assert any("the peak of the process since its start" in note for note in notes) == since_start


def test_times_of_two_sessions_side_by_side_are_told(rows):
    """As in a merged study: each speedup is of one session, s/image of dense is of the last."""
    once = Interval(1.0, 1.0, 1.0, 0.0)
    speed = Speed(once, once, None, None, None, 6, 0, 0, elsewhen=2)
    told = study_table([rows[0], replace(rows[1], speed=speed)]).notes
    assert any(note.startswith(f"s/image of {rows[1].cell.label}: not of the same session") for note in told)


@pytest.mark.parametrize(("first", "told"), [(0.9, False), (1.3, True)])
def test_a_cold_start_is_told_if_it_takes_a_tenth_more_than_a_usual_call(rows, first, told):
    """A call of 12 images at a second each; 0.9 s more is no tenth of it."""
    once = Interval(1.0, 1.0, 1.0, 0.0)
    speed = Speed(
        once,
        once,
        None,
        None,
        None,
        6,
        0,
        0,
        cold_start_seconds=first,
        cold_start_images=12,
        compile_seconds=0.0,
        break_even_images=3,
    )
    table = study_table([rows[0], replace(rows[1], seconds=once, speed=speed)])
    note = f"First calls took longer by: {rows[1].cell.label} {first:.2g} s, pays off after 3 images."
    assert (note in "".join(table.notes)) == told


def test_a_cold_start_of_one_image_is_told_as_such(rows):
    once = Interval(1.0, 1.0, 1.0, 0.0)
    speed = Speed(once, once, None, None, None, 6, 0, 0, cold_start_images=1)
    notes = "".join(study_table([replace(row, speed=speed) for row in rows]).notes)
    assert "Warm-up: one call of one image per cell, its cold start" in notes


@pytest.mark.parametrize("name", ["matrix-flux", "matrix-lumina", "matrix-sd3", "ras-lumina_tiny-ratio"])
def test_committed_tables_read_back_as_they_were_written(name):
    """Every digit of their text is that of the stored numbers."""
    table = read(EMBEDDED / name / "table.parquet")
    assert markdown(table) == (EMBEDDED / name / "table.md").read_text("utf-8")


def test_a_table_is_read_back_whole(rows, tmp_path):
    table = study_table(rows, True)
    save(table, tmp_path / "table")
    again = read(tmp_path / "table.parquet")
    assert again == replace(table, columns=list(table.columns), rows=list(table.rows))
    assert read(tmp_path / "none.parquet") is None
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    assert read(tmp_path / "table.parquet") is None


HOSTILE = {
    "\x1b[31mred\x1b]0;title\x07": "␛[31mred␛]0;title␇",
    "two\nlines\tand more": "two lines and more",
    "\u202eesrever\ud800": "�esrever?",
    "שלום 👩‍👩‍👧": "שלום 👩‍👩‍👧",
    "x" * 5_000_000: "x" * 500 + " … (5000000 characters in all)",
}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_others_wrote_steers_nothing(text, rows, tmp_path):
    """Neither a terminal nor a reader; an error's text, here."""
    failed = [*rows[:3], replace(rows[3], failure=f"RuntimeError: {text}")]
    table = study_table(failed)
    save(table, tmp_path / "table")
    assert f"3 steps failed: RuntimeError: {HOSTILE[text]}"[:400] in "\n".join(table.notes)
    for kind in ("md", "tex", "csv"):
        written = (tmp_path / f"table.{kind}").read_text("utf-8")
        assert len(written) < 10_000
        assert not {"\x1b", "\x07", "\u202e"} & set(written)
    console = Console(width=200, record=True, file=io.StringIO())
    print_table(table, console)
    assert not {"\x1b[31m", "\x07", "\u202e"} & set(console.export_text())


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_computes_no_label(formula, tmp_path):
    save(study_table([row(formula, "method", 2.0, [1, 1, 1])]), tmp_path / "table")
    (label,) = pd.read_csv(tmp_path / "table.csv")["label"]
    assert label == f"'{formula}"
    (label,) = pd.read_parquet(tmp_path / "table.parquet")["label"]
    assert label == formula


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](http://b.c)", r"[a]\(http:\//b.c)"),
        ("![a][b] www.c.de *d* _e_ f_g", r"![a]\[b] www\.c.de \*d\* \_e\_ f_g"),
        ("<b>&lt;|~x~", r"&lt;b>&amp;lt;\|\~x\~"),
    ],
)
def test_markdown_shows_a_label_as_it_is(text, shown):
    assert literal(text) == shown


def test_a_terminal_of_another_encoding_has_stand_ins(rows):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(study_table(rows), Console(width=200, file=stream))
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert "2.00x [1.90, 2.10]" in text
    assert "0.900 +- 0.082" in text


def test_a_number_of_any_size_has_few_digits():
    assert [formatted(x) for x in (1e300, -1.23456e7, 999.04)] == ["1e+300", "−1.23e+07", "999.0"]
    assert Column("x").text(Entry(1e300, 9e299, 1.1e300)) == "1e+300 [9e+299, 1.1e+300]"


def test_values_of_several_kinds_are_stored_as_text():
    stored = pd.read_parquet(io.BytesIO(parquet([{"a": 0.5}, {"a": "std"}, {"a": 2}])))
    assert stored["a"].tolist() == ["0.5", "std", "2"]

"""table.tex in a document of its own: it compiles with booktabs alone, whatever the labels hold."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fovea.eval import Score
from fovea.eval.clipscore import CLIPScore
from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row
from fovea.study.plan.cells import Cell
from fovea.study.report.formats import latex
from fovea.study.report.study_table import study_table
from tests.programs import needed

LABELS = [
    "dense",
    r"\input{/etc/passwd} 50% of $x_1^2$ & {#3} ~ <a|b>",
    "[optional] after a line's end",
    "* starred after a line's end",
    "\"quoted\" `back` 'single' -- ---",
    "café, Ångström, ½, ’, …, ‡, §, σ, Δ",
    "שלום 🦊 مرحبا 漢字 \u202e\u0007",
    "\\\\ \\end{tabular} \\\\",
]
DOCUMENT = (
    r"\documentclass{{article}}\usepackage[landscape,margin=4mm]{{geometry}}\usepackage{{booktabs}}"
    + ("\n\\begin{{document}}\\scriptsize\n{}\n\\end{{document}}\n")
)


def row(label: str, role="method") -> Row:
    cell = Cell(label, label, role, "m", {}, {"_target_": "fovea.methods.X"}, {}, "dense", False, {})
    value = Interval(1.5, 1.25, 1.75, 0.95)
    score = Score("clip_score[emoji]", CLIPScore.facts, 80.0, 1.0, 3, (79.0, 80.0, 81.0))
    gain = {"clip_score[emoji]": Interval(-1.0, -2.0, 1.0, 0.95)}
    return Row(cell, 3, 3, value, value, 10.0, 1.0, 9.9, 1e9, {score.name: score}, gain=gain)


def compiled(text: str, folder: Path) -> subprocess.CompletedProcess:
    program = needed("pdflatex")
    (folder / "paper.tex").write_text(DOCUMENT.format(text), "utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)


@pytest.mark.parametrize("warning", ["", "RANDOM WEIGHTS: 100 % noise & more"])
def test_it_compiles_with_hostile_labels(tmp_path, warning):
    rows = [row(LABELS[0], "dense"), *map(row, LABELS[1:]), replace(row("3 steps", "steps"), failure="f")]
    made = compiled(latex(replace(study_table(rows), warning=warning)), tmp_path)
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "Overfull \\vbox" not in made.stdout
    log = (tmp_path / "paper.log").read_text("utf-8", "replace")
    assert "Missing character" not in log


def test_a_finished_study_compiles(finished, tmp_path):
    made = compiled((finished / "table.tex").read_text("utf-8"), tmp_path)
    assert made.returncode == 0, made.stdout[-2000:]

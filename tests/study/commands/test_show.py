"""show=FOLDER: a study's table again, from whatever lies in its folder."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import run
from fovea.study.commands.show import tables
from fovea.study.files import write_json
from fovea.study.report import report, terminal
from fovea.study.report.formats import save
from fovea.study.report.table import Column, Entry, Table
from fovea.study.stored import Stored

ROOT = Path(__file__).resolve().parents[3]
EMBEDDED = ROOT / "results" / "embedded" / "ras-lumina_tiny-ratio"


@pytest.fixture
def study(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "study")


def shown(capsys, *arguments):
    assert run.main(list(arguments)) == 0
    out = capsys.readouterr().out.splitlines()
    return out[:-1], json.loads(out[-1])


@pytest.mark.usefixtures("undrawn")
def test_it_prints_what_the_run_printed(small, finished, capsys):
    """The same lines, and the same figures in the last one; then where it is from."""
    before, summary = shown(capsys, *small, f"results={finished.parent}", "name=whole")
    after, again = shown(capsys, f"show={finished}")
    assert after[: len(before)] == before
    for key in ("study", "cells", "done", "failed", "random_weights", "rows"):
        assert again[key] == summary[key]
    origin = Stored(finished).provenance
    rest = "\n".join(after[len(before) :])
    assert f"made: {origin['time']}, commit {origin['commit'][:7]}" in rest
    assert f"torch {origin['packages']['torch']}" in rest
    assert f"by: {origin['command']}" in rest
    assert origin["machine"]["cpu"] in rest


def test_a_committed_study_without_images_is_shown(study, capsys):
    whole, _ = shown(capsys, f"show={study}")
    for folder in ("cells", "runs"):
        shutil.rmtree(study / folder)
    assert shown(capsys, f"show={study}")[0] == whole


def test_the_embedded_study_is_shown(capsys):
    lines, summary = shown(capsys, f"show={EMBEDDED}")
    stored = pd.read_parquet(EMBEDDED / "table.parquet")
    assert [row["label"] for row in summary["rows"]] == list(stored["label"])
    assert [row["n"] for row in summary["rows"]] == list(stored["n"])
    notes = (EMBEDDED / "table.md").read_text("utf-8").rpartition("|\n")[2].strip().split("\n\n")
    assert [note for note in notes if note.replace("\\:", ":") not in lines] == []


def test_a_papers_values_are_shown_beside(study, capsys):
    columns = [
        Column("cell", "cell", left=True),
        Column("FID", "FID, published"),
        Column("m", "measured"),
    ]
    rows = [{"cell": Entry("<b> | x"), "FID": Entry(18.9, text="18.9"), "m": Entry(20.1)}]
    notes = ["Published: <i>a paper</i>", "Another note."]
    save(Table(columns, rows, notes, title="Published results"), study / "published")
    out, _ = shown(capsys, f"show={study}")
    start = out.index("Published results")
    assert out[start + 2].split("  ")[0] == "<b> | x"
    assert out[start + 3 : start + 5] == notes


def test_a_table_of_another_version_is_shown_by_its_figures(study, capsys):
    records = pd.read_parquet(study / "table.parquet")
    records.to_parquet(study / "table.parquet")
    lines, summary = shown(capsys, f"show={study}")
    ssim = next(row["ssim"] for row in summary["rows"] if row["label"] == "3 steps")
    assert any(line.startswith("3 steps") and f"{ssim:.3f}" in line for line in lines)


def test_a_study_that_was_stopped_says_how_far_it_is(study, capsys):
    for file in [*study.glob("table.*"), *study.glob("cells/*/images/*/*.png")][:6]:
        file.unlink()
    (study / "provenance.json").unlink()
    lines, summary = shown(capsys, f"show={study}")
    assert summary["cells"] == 4
    assert summary["done"] < 4
    assert f"no table yet: {summary['done']} of 4 cells are done; the same command goes on" in lines


def test_all_cells_against_one_in_pairs(capsys):
    matrix = f"show={EMBEDDED.parent / 'matrix-lumina'}"
    lines, _ = shown(capsys, matrix, "versus='random ratio=0.284'")
    told = lines[lines.index("Cells against each other, in pairs") :]
    assert any("better" in line for line in told)
    assert any("not told apart" in line for line in told)
    assert run.main([matrix, "versus=dens"]) == 2
    assert "versus=dens: no cell of this study has this label; did you mean dense?" in capsys.readouterr().err


def test_pairs_without_the_scores_of_images_are_refused(tmp_path, capsys):
    for name in ("table.parquet", "provenance.json"):
        shutil.copy(EMBEDDED / name, tmp_path)
    assert run.main([f"show={tmp_path}", "versus=dense"]) == 2
    assert "has no samples.parquet, the scores of every image" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 100, 140, 240])
@pytest.mark.parametrize("name", ["ras-lumina_tiny-ratio", "matrix-sd3"])
def test_a_table_fits_its_terminal(name, width):
    """On a narrow one every cell's figures stand in one line each."""
    table = tables(Stored(EMBEDDED.parent / name))[0]
    with open(os.devnull, "w") as file:
        console = Console(width=width, record=True, file=file)
        terminal.print_table(replace(table, notes=[]), console)
        text = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in text) <= width
    head, *body = table.lines(brief=True)
    for line in body:
        assert any(line[0] in printed for printed in text)
    if width < terminal.WIDE:
        column = [name.startswith("FLOPs") for name in head].index(True)
        figures = [printed.split() for printed in text]
        assert all(any(line[column] in printed for printed in figures) for line in body)


def test_a_name_is_enough_below_results(study, capsys):
    assert shown(capsys, "show=study", f"results={study.parent}")[1]["study"] == str(study)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show=studdy"], "show=studdy: no study; did you mean {results}/study? allowed: {results}/study"),
        (["show=study", "n=3"], "n=3: only logger, results, versus can be given with show=..."),
        (["show=study", "logger=wandbb"], "did you mean wandb?"),
        (["show=study", "logger=wandb", "logger.mode=onlin"], "did you mean online?"),
        (["show=study", "merge=[a,b]"], "show=... and merge=...: one at a time"),
        (["show=study", "rescore=study"], "show=... and rescore=...: one at a time"),
        (["show=study", "versus=dense"], "no other cell of {results}/study shares an image and a score"),
    ],
)
def test_refused(study, arguments, message, capsys):
    assert run.main([*arguments, f"results={study.parent}"]) == 2
    assert message.format(results=study.parent) in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["show=", "list=studies"])
def test_all_studies_are_listed(study, argument, capsys):
    shutil.copytree(study, study.parent / "inner" / "second")
    (study.parent / "no study").mkdir()
    lines, found = shown(capsys, argument, f"results={study.parent}")
    names = [str(study), str(study.parent / "inner" / "second")]
    assert sorted(found["names"]) == sorted(names)
    row = next(row for row in found["rows"] if row["study"] == str(study))
    assert (row["done"], row["cells"], row["random_weights"]) == (4, 4, False)
    assert row["commit"] == Stored(study).provenance["commit"]
    assert row["made"] == Stored(study).provenance["time"]
    assert any("4/4" in line for line in lines)


def test_a_folder_of_studies_is_listed(study, capsys):
    assert shown(capsys, f"show={study.parent}")[1]["names"] == [str(study)]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "table.parquet",
            b"PAR1 and then nothing",
            "is cut off or no Parquet file: rescore={study}",
        ),
        ("table.parquet", POINTER, "is a pointer of Git LFS, not the file itself: `git lfs pull`"),
        ("provenance.json", b'{"config": [], "cells": {}}', "is not whole, or not of a study that"),
        ("provenance.json", POINTER, "is a pointer of Git LFS"),
    ],
)
def test_one_broken_study_is_named_and_the_others_are_listed(study, name, content, why, capsys):
    good = shutil.copytree(study, study.parent / "good")
    (study / name).write_bytes(content)
    shutil.rmtree(study / "runs")
    told = f"{study / name} {why.format(study=study)}"
    for argument in ("list=studies", "show="):
        lines, found = shown(capsys, argument, f"results={study.parent}")
        assert found["names"] == [str(good)]
        assert found["faults"][0].startswith(told)
        assert any(line.startswith(told) for line in lines)
    for arguments in ([f"show={study}"], [f"compare=[{good},{study}]"]):
        assert run.main(arguments) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(cells={}),
        lambda record: record.update(samples={}),
        lambda record: record["config"].update(metric=None),
        lambda record: record["config"].update(n="two"),
        lambda record: record["config"].pop("cost"),
    ],
)
def test_an_edited_provenance_is_no_provenance(study, change, capsys):
    good = shutil.copytree(study, study.parent / "good")
    record = json.loads((study / "provenance.json").read_text("utf-8"))
    change(record)
    (study / "provenance.json").write_text(json.dumps(record), "utf-8")
    shutil.rmtree(study / "runs")
    for argument in (f"show={study}", f"rescore={study}", f"compare=[{good},{study}]"):
        assert run.main([argument]) == 2
        assert "provenance.json is not whole, or not of a study" in capsys.readouterr().err
    assert run.main([f"merge=[{good},{study}]", "name=new", f"results={study.parent}"]) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_report_that_was_stopped_in_the_middle_is_no_report(study, monkeypatch, capsys):
    """The new table is not shown as that of the old provenance, and the same command makes a whole of it."""
    before = (study / "provenance.json").read_bytes()
    command = [f"rescore={study}", "metric=[psnr]"]

    def stopped(path, record):
        if path.name == "provenance.json":
            raise KeyboardInterrupt
        write_json(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_json", stopped)
        assert run.main(command) == 130
    assert (study / "provenance.json").read_bytes() == before
    capsys.readouterr()
    commands = ([f"show={study}"], [f"show={study}", "versus=dense"], [f"compare=[{study},{EMBEDDED}]"])
    for arguments in (*commands, [f"show={study}", "logger=wandb"]):
        assert run.main(arguments) == 2
        told = capsys.readouterr().err
        assert "table.parquet is of another report than provenance.json" in told
        assert f"rescore={study}" in told
    assert shown(capsys, f"show={study.parent}")[1]["names"] == []
    assert run.main(command) == 0
    capsys.readouterr()
    assert shown(capsys, f"show={study}")[1]["rows"][1].keys() >= {"psnr"}


def test_a_table_of_something_else_is_named(study, capsys):
    pd.DataFrame({"a": [1]}).to_parquet(study / "table.parquet")
    assert run.main([f"show={study}"]) == 2
    assert (
        f"table.parquet is no such table of a study: rescore={study} makes it again"
        in capsys.readouterr().err
    )

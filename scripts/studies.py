"""Shared by scripts that make one table from several stored studies: a command line, and recomputed gains."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fovea.eval import Score
from fovea.eval.interval import Interval
from fovea.study.analysis.contrasts import Subject, of_study
from fovea.study.analysis.gain import with_gain
from fovea.study.analysis.row import Row
from fovea.study.plan.cells import Cell
from fovea.study.stored import Record, Stored


def folder_and_name(help: str | None, name: str) -> tuple[Path, str]:
    """Parse FOLDER and NAME: studies are read from FOLDER/NAME-*, the table is written to FOLDER/NAME."""
    parser = argparse.ArgumentParser(description=help, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/embedded"))
    parser.add_argument("name", nargs="?", default=name)
    given = parser.parse_args()
    return given.folder, given.name


def gains(study: Stored) -> dict[str, dict[str, Interval]]:
    """Return cell -> score -> gain at equal FLOPs, recomputed with the current code from the stored scores
    and FLOPs of every image."""
    subjects = dict(zip((record["cell"] for record in study.records), of_study(study), strict=True))
    flops = {cell: {i["key"]: i["flops"] for i in images} for cell, images in study.by_cell.items()}
    rows = [_row(record, subjects[record["cell"]], flops) for record in study.records]
    return {row.cell.id: dict(row.gain) for row in with_gain(rows, "flops")}


def _row(record: Record, subject: Subject, flops: Mapping[str, Mapping[str, float]]) -> Row:
    """Return a table record as a Row with what a gain is computed from."""
    id, label, keys = record["cell"], subject.label, tuple(subject.prompts)
    cell = Cell(id, label, record["role"], label, {}, dict(subject.method), {}, subject.dense, False, {})
    scores = {
        name: Score(
            name, each.facts, record[name], None, len(keys), tuple(each.values[k] for k in keys), each.pool
        )
        for name, each in subject.scores.items()
        if len(each.values) == len(keys)
    }
    return Row(
        cell,
        n=record["n"],
        planned=record["planned"],
        flops_ratio=record["flops_ratio"],
        scores=scores,
        keys=keys,
        prompts=tuple(subject.prompts.values()),
        relative={key: flops[id][key] / flops[subject.dense][key] for key in keys},
    )

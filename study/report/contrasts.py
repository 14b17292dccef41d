"""Cells against each other, in pairs: a table of its own, beside that of the cells."""

import math
from collections.abc import Sequence
from dataclasses import replace

from fovea.study.analysis.contrasts import VERSUS, Contrast
from fovea.study.report.notes import unseen
from fovea.study.report.study_table import RANDOM, star
from fovea.study.report.table import Column, Entry, Table, bounded

TITLE = "Cells against each other, in pairs"
P = ((math.inf, 4),)
COLUMNS = (
    Column("cell", "cell", left=True),
    Column("control", "less", left=True),
    Column("question", "question", brief=False, left=True),
    Column("score", "score", left=True),
    Column("difference", "difference", spread="interval", signed=True),
    Column("p", "p", digits=P, brief=False, best="ascending"),
    Column("p_holm", "corrected", digits=P, brief=False, best="ascending"),
    Column("verdict", "verdict", left=True),
    Column("n", "n", digits=((math.inf, 0),), brief=False),
)
MANY = 24  # lines
NOTE = (
    "Differences: the first cell less the second over the images that both have, prompts drawn together "
    "[95 % interval]. Corrected: p with Holm's correction for all pairs of one question in all scores; the "
    "verdict and * are by it, at 5 %."
)
CONTROLS = "Of several controls that of the nearest cost stands here, at most a quarter apart."


def contrast_table(found: Sequence[Contrast], random_weights: bool) -> Table | None:
    """None where there is nothing to compare."""
    if not found:
        return None
    natural = [] if found[0].why == VERSUS else [CONTROLS]
    warning = RANDOM if random_weights else ""
    return Table(
        COLUMNS, [_row(c) for c in found], [NOTE, *natural, *unseen(min(c.n for c in found))], TITLE, warning
    )


def in_short(table: Table) -> Table:
    """For a terminal: of many pairs those that are told apart."""
    if len(table.rows) <= MANY:
        return table
    rows = [row for row in table.rows if row["verdict"].value in ("better", "worse")]
    rest = f"{len(table.rows) - len(rows)} more differences are not told apart: contrasts.csv has them."
    return replace(table, rows=rows, notes=[*table.notes, rest])


def _row(contrast: Contrast) -> dict[str, Entry]:
    return {
        "cell": Entry(contrast.cell),
        "control": Entry(contrast.control),
        "question": Entry(contrast.why),
        "score": Entry(contrast.score, text=contrast.facts.heading(contrast.score)),
        "difference": bounded(contrast.by, star(contrast.holm)),
        "p": Entry(contrast.by.p),
        "p_holm": Entry(contrast.holm),
        "verdict": Entry(contrast.verdict),
        "n": Entry(contrast.n),
    }

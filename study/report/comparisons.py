"""Tables of differences: between cells in pairs, and between two studies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fovea.study.analysis.change import Change
from fovea.study.analysis.contrasts import VERSUS, Contrast
from fovea.study.report.notes import RANDOM, unseen_failures
from fovea.study.report.study_table import star
from fovea.study.report.table import COUNT, NOTHING, Column, Entry, Table, bounded, formatted

TITLE = "Cells against each other, in pairs"
P = ((math.inf, 4),)  # digits of p-values
COLUMNS = (
    Column("cell", "cell", left=True),
    Column("control", "less", left=True),
    Column("question", "question", brief=False, left=True),
    Column("score", "score", left=True),
    Column("difference", "difference", spread="interval", signed=True),
    Column("p", "p", digits=P, brief=False, best="ascending"),
    Column("p_holm", "corrected", digits=P, brief=False, best="ascending"),
    Column("verdict", "verdict", left=True),
    Column("n", "n", digits=COUNT, brief=False),
)
MAX_LINES = 24  # lines of pairs on a terminal
NOTE = (
    "Differences: the first cell less the second over the images that both have, prompts drawn together "
    "[95 % interval]. Corrected: p with Holm's correction for all pairs of one question in all scores; the "
    "verdict and * are by it, at 5 %, and by an interval that leaves zero out."
)
LIKENESSES = "Likenesses are compared between cells of one baseline alone."
CONTROLS = "Of several controls that of the nearest cost stands here, at most a quarter apart."
COST_FORMATS = {  # name, divisor, unit
    "seconds": ("s/image", 1, ""),
    "speedup": ("speedup", 1, "×"),
    "flops": ("FLOPs", 1e9, " G"),
    "memory_bytes": ("memory", 2**30, " GiB"),
}
CHANGES = (
    Column("cell", "cell", left=True),
    Column("figure", "figure", left=True),
    *(Column(key, key) for key in ("first", "second", "change", "n")),
)
CHANGE_NOTES = (
    "Costs: the second over the first, in per cent; the median over the batches that both have "
    "[distribution-free interval, of 95 % from six batches on]. The two were not measured in turns: a "
    "machine that was busier at one time is in them.",
    "Scores: the second minus the first, with 95 % intervals, over the images that both have, resampled "
    "together; n 0: no image is in both, the two are taken as independent. A likeness is to the dense images "
    "of its own study. * holds after Holm's correction for all of these differences, and has an interval "
    "without zero.",
)


def contrast_table(found: Sequence[Contrast], random_weights: bool) -> Table | None:
    """Return the table of contrasts, or None without contrasts."""
    if not found:
        return None
    controls = [LIKENESSES if found[0].question == VERSUS else CONTROLS]
    notes = [NOTE, *controls, *unseen_failures(min(c.n for c in found))]
    return Table(COLUMNS, [_row(c) for c in found], notes, TITLE, RANDOM if random_weights else "")


def in_short(table: Table) -> Table:
    """Shorten a long table of contrasts to the significant ones, for a terminal."""
    if len(table.rows) <= MAX_LINES:
        return table
    rows = [row for row in table.rows if row["verdict"].value in ("better", "worse")]
    rest = f"{len(table.rows) - len(rows)} more differences are not told apart: contrasts.csv has them."
    return replace(table, rows=rows, notes=[*table.notes, rest])


def _row(contrast: Contrast) -> dict[str, Entry]:
    return {
        "cell": Entry(contrast.cell),
        "control": Entry(contrast.control),
        "question": Entry(contrast.question),
        "score": Entry(contrast.score, text=contrast.facts.heading(contrast.score)),
        "difference": bounded(contrast.by, star(contrast.by, contrast.holm)),
        "p": Entry(contrast.by.p),
        "p_holm": Entry(contrast.holm),
        "verdict": Entry(contrast.verdict),
        "n": Entry(contrast.n),
    }


def change_table(found: Sequence[Change]) -> Table:
    """Return the table of changes between two studies."""
    return Table(CHANGES, list(map(_change, found)), CHANGE_NOTES)


def _change(change: Change) -> dict[str, Entry]:
    name = change.facts.heading(change.figure) if change.facts else COST_FORMATS[change.figure][0]
    counted = change.by is not None and change.figure not in ("flops", "memory_bytes")
    first, second = (Entry(x, text=_value(change.figure, x)) for x in (change.a, change.b))
    return {
        "cell": Entry(change.cell),
        "figure": Entry(change.figure, text=name),
        "first": first,
        "second": second,
        "change": Entry(
            change.by and change.by.value, mark=star(change.by, change.holm), text=_change_text(change)
        ),
        "n": Entry(change.pairs, text=str(change.pairs) if counted else ""),
    }


def _value(name: str, x: float | None) -> str:
    if x is None:
        return NOTHING
    _, scale, unit = COST_FORMATS.get(name, ("", 1, ""))
    return f"{x / scale:.2f}{unit}" if unit else formatted(x)


def _change_text(change: Change) -> str:
    if change.by is None:
        return change.why or NOTHING
    scale, unit = (100, " %") if change.relative else (1, "")
    value, low, high = (scale * x for x in (change.by.value, change.by.low, change.by.high))
    if value == low == high == 0:
        return "same"
    text = f"{'+' if value >= 0 else ''}{_change_number(value, change)}{unit}"
    return text if low == high else f"{text} [{_change_number(low, change)}, {_change_number(high, change)}]"


def _change_number(x: float, change: Change) -> str:
    return f"{x:.1f}".replace("-", "−") if change.relative else formatted(x)


def origin_table(differences: Mapping[str, tuple[Any, Any]]) -> Table | None:
    """Return the differences in provenance of two studies (first, second), or None if there are none."""
    columns = [Column(key, key, left=True) for key in ("differs in", "first", "second")]
    rows = []
    for key, values in differences.items():
        first, second = (Entry(text=text_or_dash(value)) for value in values)
        rows.append({"differs in": Entry(key), "first": first, "second": second})
    return Table(columns, rows) if rows else None


def text_or_dash(value: Any) -> str:
    return NOTHING if value is None else str(value)

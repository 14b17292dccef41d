"""What stands beside the verdict: what to keep in mind, what is missing, and why."""

from collections.abc import Sequence

from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.report.phrases import (
    NAMED,
    above,
    cell,
    cells_or_count,
    joined,
    score,
    settings,
    survives,
)
from fovea.study.report.table import headline

AFTER_THE_FACT = (
    "The best are picked after the fact: an interval of 95 % is that of a cell named beforehand, and "
    "flatters the best of several."
)


def beside(rows: Sequence[Row]) -> list[Markup]:
    own = settings(rows)
    return [*_caution(own, rows), *_outside(own, rows), *_missing(rows), *_unavailable(rows)]


def _caution(own: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    named = any(survives(row, name) or above(row, name) for row in own for name in row.gain)
    out = [Markup(AFTER_THE_FACT)] if named and len(own) > 1 else []
    likenesses = [s.name for s in headline(rows) if s.facts.kind == "likeness"]
    alike = [name for name in likenesses if any(_has(row, name) for row in own)]
    if alike:
        says = Markup("{} {}").format(joined(map(score, alike)), "says" if len(alike) == 1 else "say")
        whole = "{} how near an image is to the dense one of the same seed, not how good it is."
        out.append(Markup(whole).format(says))
    return out


def _has(row: Row, name: str) -> bool:
    found = row.scores.get(name)
    return found is not None and found.value is not None


def _outside(own: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    """Cells that step reduction has nothing beside."""
    ungained = [row for row in own if row.cheaper and not row.gain and any(_has(row, n) for n in row.scores)]
    if not ungained:
        return []
    if not any(row.cell.role == "steps" and row.n for row in rows):
        return [Markup("There is no step reduction in this study, hence no gain over it.")]
    whole = "No gain is given for {}: step reduction has no cells on both sides of that cost."
    return [Markup(whole).format(cells_or_count(ungained))]


def _missing(rows: Sequence[Row]) -> list[Markup]:
    failed = [row for row in rows if row.failure]
    unfinished = [row for row in rows if row.n < row.planned and not row.failure]
    out = []
    if failed:
        who = cells_or_count(failed) if len(failed) <= NAMED else Markup("see the failures")
        out.append(Markup("{} of {} cells failed: {}.").format(len(failed), len(rows), who))
    if unfinished:
        each = [Markup("{} ({} of {} images)").format(cell(r), r.n, r.planned) for r in unfinished[:NAMED]]
        each += [Markup("{} more").format(len(unfinished) - NAMED)] if len(unfinished) > NAMED else []
        out.append(Markup("Not finished: {}.").format(joined(each)))
    return out


def _unavailable(rows: Sequence[Row]) -> list[Markup]:
    """Scores that share a reason share a sentence."""
    shown, found = {s.name for s in headline(rows)}, {}
    for row in rows:
        for s in row.scores.values():
            if s.unavailable and s.name in shown and row.cell.role != "dense":
                why = ": ".join(filter(None, (s.unavailable, s.remedy)))
                found.setdefault(why.rstrip("."), {})[s.name] = None
    whole = "{} {} unavailable: {}."
    return [
        Markup(whole).format(joined(map(score, names)), "is" if len(names) == 1 else "are", why)
        for why, names in found.items()
    ]

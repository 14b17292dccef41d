"""One cell against another, in pairs: the same prompts and seeds make most of what two cells share cancel,
which two intervals beside each other do not show.

Without a cell to compare with (`versus`), the natural pairs of a study (natural_pairs.py)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fovea.eval.decisions import differs, holm
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, Worse
from fovea.eval.statistics import paired_difference, pooled
from fovea.study.analysis.natural_pairs import natural
from fovea.study.analysis.row import Row
from fovea.study.analysis.subjects import Subject, of_row
from fovea.study.plan.plan import labelled

VERSUS = "versus"


@dataclass(frozen=True)
class Contrast:
    """cell less control in a score, over n images that both have. why: they are a natural pair. holm: p
    adjusted for all contrasts of its question."""

    cell: str
    control: str
    why: str
    score: str
    facts: Facts
    by: Interval
    n: int
    holm: float = 1.0

    @property
    def verdict(self) -> str:
        """In words, after the correction."""
        if self.by.p is None:
            return "one prompt tells nothing"
        if not differs(self.by, self.holm):
            return "not told apart"
        return "better" if (self.by.value > 0) == (self.facts.better == "higher") else "worse"


def controlled(subjects: Sequence[Subject]) -> list[Contrast]:
    """The natural pairs."""
    return _corrected(natural(subjects))


def against(subjects: Iterable[Subject], others: Sequence[Subject], label: str) -> list[Contrast]:
    """Each against the one of others that is called so. Refused where there is none."""
    labelled(label, [s.label for s in others])
    control = next(s for s in others if s.label == label)
    return _corrected((s, control, VERSUS) for s in subjects if s.scores != control.scores)


def _corrected(pairs: Iterable[tuple[Subject, Subject, str]]) -> list[Contrast]:
    """With Holm's correction for all pairs of one question in all scores."""
    found = [c for cell, control, why in pairs for c in _contrasted(cell, control, why)]
    adjusted: dict[int, float] = {}
    for why in dict.fromkeys(c.why for c in found):
        adjusted |= holm({i: c.by.p for i, c in enumerate(found) if c.why == why and c.by.p is not None})
    return [replace(c, holm=adjusted.get(i, 1.0)) for i, c in enumerate(found)]


def _contrasted(cell: Subject, control: Subject, why: str) -> Iterator[Contrast]:
    for name, a in cell.scores.items():
        b = control.scores.get(name)
        if b is None or a.facts.hidden or a.pool != b.pool:
            continue
        both = [key for key in a.values if key in b.values]
        of_a_set = a.facts.kind == "distance"  # whose images' shares are of that set alone
        if not both or (of_a_set and not len(both) == len(a.values) == len(b.values)):
            continue
        x, y = ([each.values[key] for key in both] for each in (a, b))
        if not all(math.isfinite(pooled(v, pool=a.pool)) for v in (x, y)):
            continue
        prompts = [cell.prompts[key] for key in both]
        worse: Worse | None = None if of_a_set else "either"
        by = paired_difference(x, y, pool=a.pool, groups=prompts, worse=worse)
        yield Contrast(cell.label, control.label, why, name, a.facts, by, len(both))


def of_rows(rows: Sequence[Row], versus: str | None) -> list[Contrast]:
    """Of a study's table."""
    subjects = [of_row(row) for row in rows]
    return against(subjects, subjects, versus) if versus else controlled(subjects)

"""One cell against another, in pairs: the same prompts and seeds make most of what two cells share cancel,
which two intervals beside each other do not show.

Without a cell to compare with (`versus`), the natural pairs of a study: a method and its control, a
composition and its part, a cache and step reduction; each where the two cost about the same."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

from fovea.eval.decisions import differs, holm
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, Worse
from fovea.eval.statistics import Pool, paired_difference, pooled
from fovea.study.analysis.row import Row
from fovea.study.plan.plan import labelled
from fovea.study.stored import Stored

Node = Mapping[str, Any]
APART = 0.25  # of the cost, that a method and its control may differ by
VERSUS = "versus"
STEPS = "a cache, a solver or fewer steps"
SIBLING = "a method or a sibling of its model that costs no more"


@dataclass(frozen=True)
class Each:
    """A score of every image by key, and how they make the figure."""

    facts: Facts
    pool: Pool
    values: Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """What is compared of a cell. cheaper: how many times less than dense it costs, 0 if unknown. prompts: by
    key."""

    label: str
    role: str
    dense: str
    method: Node
    cheaper: float
    scores: Mapping[str, Each]
    prompts: Mapping[str, str]

    @cached_property
    def kind(self) -> str:
        """RAS, of fovea.methods.RAS."""
        return kind(self.method)


def kind(node: Node) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def of_row(row: Row) -> Subject:
    scores = {
        name: Each(score.facts, score.pool, dict(zip(row.keys, score.per_image, strict=True)))
        for name, score in row.scores.items()
        if score.value is not None and score.per_image is not None
    }
    prompts = dict(zip(row.keys, row.prompts, strict=True))
    cell = row.cell
    return Subject(cell.label, cell.role, cell.dense, cell.method, row.cheaper, scores, prompts)


def of_study(study: Stored) -> list[Subject]:
    """As its table and samples have them."""
    cost = "flops_ratio" if study.provenance["config"].get("cost") == "flops" else "speedup"
    images: dict[str, list[dict[str, Any]]] = {}
    for image in study.samples:
        images.setdefault(image["cell"], []).append(image)
    found = []
    for record in study.records:
        known, mine = study.provenance["cells"][record["cell"]], images.get(record["cell"], [])
        scores = {name: _each(study.facts[name], mine, name, record.get(name)) for name in study.scores}
        found.append(
            Subject(
                record["label"],
                record["role"],
                known["dense"],
                known["method"],
                record.get(cost) or 0.0,
                {name: each for name, each in scores.items() if each is not None},
                {image["key"]: image["prompt"] for image in mine},
            )
        )
    return found


def _each(facts: Facts, images: Sequence[Mapping[str, Any]], name: str, figure: float | None) -> Each | None:
    """None where the images' values do not make the figure of the table."""
    values = {image["key"]: image[name] for image in images if image.get(name) is not None}
    pool = how_pooled(list(values.values()), figure)
    return None if pool is None else Each(facts, pool, values)


def how_pooled(values: Sequence[float], figure: float | None) -> Pool | None:
    """How the images' values make the figure of the table; None if they do not."""
    if not values or figure is None:
        return None
    same = (p for p in get_args(Pool) if math.isclose(pooled(values, pool=p), figure, rel_tol=1e-6))
    return next(same, None)


@dataclass(frozen=True)
class Rule:
    """why: what the pair tells. of: whether a method is one to compare; to: whether another, given it, is its
    control."""

    why: str
    of: Callable[[Node], bool]
    to: Callable[[Node, Node], bool]


def _is(node: Node, name: str, **settings: Any) -> bool:
    """A setting that a method has not is None."""
    return kind(node) == name and all(node.get(key) == value for key, value in settings.items())


def _but(a: Node, b: Node, *keys: str) -> bool:
    """The same method, apart from these settings."""
    return kind(a) == kind(b) and all(a.get(k) == b.get(k) for k in {*a, *b} - {*keys})


def _alone(node: Node) -> bool:
    """No composition."""
    return node.get("cache") is None and node.get("last") is None


def _chosen(node: Node) -> bool:
    return kind(node) == "RAS" and _alone(node)


RULES = (
    Rule(
        "chosen or random tokens",
        lambda a: _chosen(a) and a.get("stale", "reuse") == "reuse",
        lambda a, b: _is(b, "Random") and all(a.get(k) == v for k, v in b.items() if k != "_target_"),
    ),
    Rule(
        "one end of the ranking or the other",
        lambda a: _chosen(a) and a.get("high_ratio") == 1,
        lambda a, b: b.get("high_ratio") == 0 and _but(a, b, "high_ratio"),
    ),
    Rule(
        "forecast or reused tokens",
        lambda a: _chosen(a) and a.get("stale") == "taylor",
        lambda a, b: b.get("stale") == "reuse" and _but(a, b, "stale"),
    ),
    Rule(
        "chosen or random regions",
        lambda a: _is(a, "RALU", selection="edges") and _alone(a),
        lambda a, b: b.get("selection") == "random" and _but(a, b, "selection"),
    ),
    Rule(
        "composition or the method alone",
        lambda a: kind(a) in ("RAS", "RALU") and not _alone(a),
        lambda a, b: kind(a) == kind(b) and _alone(b) and b.get("selection") == a.get("selection"),
    ),
    Rule(
        "composition or the cache alone",
        lambda a: kind(a) != "Caching" and a.get("cache") is not None,
        lambda a, b: _is(b, "Caching") and kind(b["cache"]) == kind(a["cache"]),
    ),
    Rule("composition or RAS alone", lambda a: a.get("last") is not None, lambda a, b: _chosen(b)),
)


def natural(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Subject, str]]:
    """Each method beside its controls: of several that are one, that of the nearest cost."""
    for cell in subjects:
        if cell.role != "method" or not cell.cheaper:
            continue
        others = [s for s in subjects if s.dense == cell.dense and s is not cell and s.role == "method"]
        for rule in RULES:
            if rule.of(cell.method):
                fit = [s for s in others if rule.to(cell.method, s.method)]
                if control := _nearest(cell, fit):
                    yield cell, control, rule.why
        if cell.kind in ("Caching", "Steps"):
            curve = [s for s in subjects if s.dense == cell.dense and s.role == "steps"]
            if control := _nearest(cell, curve):
                yield cell, control, STEPS
        for rival in subjects:
            if (rival.role, rival.dense) == ("sibling", cell.dense) and rival.cheaper >= cell.cheaper:
                yield cell, rival, SIBLING


def _nearest(cell: Subject, controls: Sequence[Subject]) -> Subject | None:
    """By cost, then by the settings they share."""

    def far(control: Subject) -> tuple[float, int]:
        other = sum(cell.method.get(k) != v for k, v in control.method.items())
        return round(abs(math.log(control.cheaper / cell.cheaper)), 3), other

    near = [c for c in controls if c.cheaper and far(c)[0] <= math.log(1 + APART)]
    return min(near, key=far, default=None)


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

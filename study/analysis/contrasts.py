"""Paired comparisons of cells.

Two cells are compared on the same prompts and seeds, so most of the variation that they share cancels; two
separate intervals do not show that. Without a cell to compare with (`versus`), the pairs are the natural
controls of a study: a method and its control, a composition and its parts, a cache and step reduction, each
at about the same cost, and a sibling model that costs no more.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from fovea.eval.decisions import differs, holm
from fovea.eval.facts import Facts
from fovea.eval.interval import Interval, Worse
from fovea.eval.statistics import Pool, paired_difference, pooled
from fovea.study.analysis.row import Row
from fovea.study.plan.plan import labelled
from fovea.study.stored import Stored

Node = Mapping[str, Any]
MAX_COST_GAP = 0.25  # largest relative difference in cost of a method and its control
TOKENS = ("selection", "high_ratio", "text")  # settings that say which tokens run
RANKING = ("selection", "high_ratio", "starvation", "ageing")  # those that random tokens do not depend on
VERSUS = "versus"
STEPS = "a cache, a solver or fewer steps"
SIBLING = "a method or a sibling of its model that costs no more"


@dataclass(frozen=True)
class Each:
    """Per-image values of one score by key, and how they are pooled."""

    facts: Facts
    pool: Pool
    values: Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A cell as it enters a comparison.

    cost_ratio: cost of dense over that of the cell, 0 if unknown.
    prompts: prompt of each image by key.
    """

    label: str
    role: str
    dense: str
    method: Node
    cost_ratio: float
    scores: Mapping[str, Each]
    prompts: Mapping[str, str]


def kind(node: Node) -> str:
    """Return the class name of a method: RAS for fovea.methods.RAS."""
    return str(node["_target_"]).rpartition(".")[2]


def of_row(row: Row) -> Subject:
    scores = {
        name: Each(score.facts, score.pool, dict(zip(row.keys, score.per_image, strict=True)))
        for name, score in row.scores.items()
        if score.value is not None and score.per_image is not None
    }
    prompts = dict(zip(row.keys, row.prompts, strict=True))
    cell = row.cell
    return Subject(cell.label, cell.role, cell.dense, cell.method, row.cost_ratio, scores, prompts)


def of_study(study: Stored) -> list[Subject]:
    """Read the cells of a stored study from its table and samples."""
    cost = "flops_ratio" if study.provenance["config"].get("cost") == "flops" else "speedup"
    found = []
    for record in study.records:
        known, images = study.provenance["cells"][record["cell"]], study.by_cell.get(record["cell"], [])
        scores = {name: _each(study, record, name) for name in study.scores}
        found.append(
            Subject(
                record["label"],
                record["role"],
                known["dense"],
                known["method"],
                record.get(cost) or 0.0,
                {name: each for name, each in scores.items() if each is not None},
                {image["key"]: image["prompt"] for image in images},
            )
        )
    return found


def _each(study: Stored, record: Mapping[str, Any], name: str) -> Each | None:
    """Return the per-image values of a score, or None if they do not pool to the figure of the table."""
    values = study.per_image(record["cell"], name)
    pool = how_pooled(list(values.values()), record.get(name))
    return None if pool is None else Each(study.facts[name], pool, values)


def how_pooled(values: Sequence[float], figure: float | None) -> Pool | None:
    """Return how per-image values pool to the figure of the table, or None if they do not."""
    return next(iter(ways_to_pool(values, figure)), None)


def ways_to_pool(values: Sequence[float], figure: float | None) -> list[Pool]:
    """Return every way in which per-image values pool to the figure of the table: all, of values that are all
    infinite or all alike."""
    if not values or figure is None:
        return []
    ways: tuple[Pool, ...] = get_args(Pool)
    return [way for way in ways if math.isclose(pooled(values, pool=way), figure, rel_tol=1e-6)]


@dataclass(frozen=True)
class Rule:
    """A kind of natural pair.

    question: what the pair answers.
    of: true for a method (its config node) that has such a control.
    to: true if the second method is the control of the first.
    """

    question: str
    of: Callable[[Node], bool]
    to: Callable[[Node, Node], bool]


def _is(node: Node, name: str, **settings: Any) -> bool:
    """True if the node is of this class with these settings; a missing setting counts as None."""
    return kind(node) == name and all(node.get(key) == value for key, value in settings.items())


def _same_except(a: Node, b: Node, *keys: str) -> bool:
    """True if two nodes are equal except for these settings."""
    return kind(a) == kind(b) and _share(a, b, *({*a, *b} - {*keys}))


def _share(a: Node, b: Node, *keys: str) -> bool:
    """True if these settings are the same in both."""
    return all(a.get(key) == b.get(key) for key in keys)


def _is_plain(node: Node) -> bool:
    """True unless the method is composed with a cache or, in its last stage, with RAS."""
    return node.get("cache") is None and node.get("last") is None


def _is_plain_ras(node: Node) -> bool:
    return kind(node) == "RAS" and _is_plain(node)


def _is_random_tokens(a: Node, b: Node) -> bool:
    """True if b runs random tokens, as many and at the same steps as a, as a method of its own or as RAS."""
    alone = _is(b, "Random") and all(a.get(k) == v for k, v in b.items() if k != "_target_")
    return alone or (_is(b, "RAS", selection="random") and _same_except(a, b, *RANKING))


RULES = (
    Rule(
        "chosen or random tokens",
        lambda a: (
            _is_plain_ras(a) and a.get("stale", "reuse") == "reuse" and not _is(a, "RAS", selection="random")
        ),
        _is_random_tokens,
    ),
    Rule(
        "one end of the ranking or the other",
        lambda a: _is_plain_ras(a) and a.get("high_ratio") == 1,
        lambda a, b: b.get("high_ratio") == 0 and _same_except(a, b, "high_ratio"),
    ),
    Rule(
        "forecast or reused tokens",
        lambda a: _is_plain_ras(a) and a.get("stale") == "taylor",
        lambda a, b: b.get("stale") == "reuse" and _same_except(a, b, "stale"),
    ),
    Rule(
        "kept or running text",
        lambda a: _is_plain_ras(a) and a.get("text") == "keep",
        lambda a, b: b.get("text") == "run" and _same_except(a, b, "text", "ratio"),
    ),
    Rule(
        "chosen or random regions",
        lambda a: _is(a, "RALU", selection="edges") and _is_plain(a),
        lambda a, b: b.get("selection") == "random" and _same_except(a, b, "selection"),
    ),
    Rule(
        "composition or the method alone",
        lambda a: kind(a) in ("RAS", "RALU") and not _is_plain(a),
        lambda a, b: kind(a) == kind(b) and _is_plain(b) and _share(a, b, *TOKENS),
    ),
    Rule(
        "composition or the cache alone",
        lambda a: kind(a) != "Caching" and a.get("cache") is not None,
        lambda a, b: _is(b, "Caching") and kind(b["cache"]) == kind(a["cache"]),
    ),
    Rule(
        "composition or RAS alone",
        lambda a: a.get("last") is not None,
        lambda a, b: _is_plain_ras(b) and _share(a["last"], b, *TOKENS, "stale"),
    ),
)


def natural(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Subject, str]]:
    """Yield (cell, control, question) for every method; of several controls, the one of the nearest cost."""
    for cell in subjects:
        if cell.role != "method" or not cell.cost_ratio:
            continue
        others = [s for s in subjects if s.dense == cell.dense and s is not cell and s.role == "method"]
        for rule in RULES:
            if rule.of(cell.method):
                controls = [s for s in others if rule.to(cell.method, s.method)]
                if control := _nearest(cell, controls):
                    yield cell, control, rule.question
        if kind(cell.method) in ("Caching", "Multistep", "Steps"):
            curve = [s for s in subjects if s.dense == cell.dense and s.role == "steps"]
            if control := _nearest(cell, curve):
                yield cell, control, STEPS
        for rival in subjects:
            if (rival.role, rival.dense) == ("sibling", cell.dense) and rival.cost_ratio >= cell.cost_ratio:
                yield cell, rival, SIBLING


def _nearest(cell: Subject, controls: Sequence[Subject]) -> Subject | None:
    """Return the control nearest in cost, then in settings; None if none is within the allowed gap."""

    def distance(control: Subject) -> tuple[float, int]:
        differing = sum(cell.method.get(k) != v for k, v in control.method.items())
        return round(abs(math.log(control.cost_ratio / cell.cost_ratio)), 3), differing

    near = [c for c in controls if c.cost_ratio and distance(c)[0] <= math.log(1 + MAX_COST_GAP)]
    return min(near, key=distance, default=None)


@dataclass(frozen=True)
class Contrast:
    """Difference of a cell and its control in one score, over the images that both have.

    question: what the pair answers, or `VERSUS`.
    by: cell - control.
    n: number of shared images.
    holm: p-value after Holm's correction for all contrasts of the same question.
    """

    cell: str
    control: str
    question: str
    score: str
    facts: Facts
    by: Interval
    n: int
    holm: float = 1.0

    @property
    def verdict(self) -> str:
        """The result in words, after Holm's correction."""
        if self.by.p is None:
            return "one prompt tells nothing"
        if not differs(self.by, self.holm):
            return "not told apart"
        return "better" if (self.by.value > 0) == (self.facts.better == "higher") else "worse"


def controlled(subjects: Sequence[Subject]) -> list[Contrast]:
    """Compare the natural pairs."""
    return _with_holm(natural(subjects))


def against(subjects: Iterable[Subject], others: Sequence[Subject], label: str) -> list[Contrast]:
    """Compare each subject with the one of `others` that has this label; raise Refused if none has.

    Subjects with the same scores as the control, such as the control itself, are skipped; of a subject with
    another baseline of the same study, the likenesses, which are to other images.
    """
    labelled(label, [s.label for s in others])
    control = next(s for s in others if s.label == label)
    baselines = {s.dense for s in others} - {control.dense}
    comparable = (s if s.dense not in baselines else _without_likenesses(s) for s in subjects)
    return _with_holm((s, control, VERSUS) for s in comparable if s.scores != control.scores)


def _without_likenesses(subject: Subject) -> Subject:
    scores = {name: each for name, each in subject.scores.items() if each.facts.kind != "likeness"}
    return replace(subject, scores=scores)


def _with_holm(pairs: Iterable[tuple[Subject, Subject, str]]) -> list[Contrast]:
    """Compute the contrasts, with Holm's correction over all pairs and scores of each question."""
    found = [c for cell, control, question in pairs for c in _contrasts(cell, control, question)]
    adjusted: dict[int, float] = {}
    for question in dict.fromkeys(c.question for c in found):
        adjusted |= holm(
            {i: c.by.p for i, c in enumerate(found) if c.question == question and c.by.p is not None}
        )
    return [replace(c, holm=adjusted.get(i, 1.0)) for i, c in enumerate(found)]


def _contrasts(cell: Subject, control: Subject, question: str) -> Iterator[Contrast]:
    for name, a in cell.scores.items():
        b = control.scores.get(name)
        if b is None or a.facts.hidden or a.pool != b.pool:
            continue
        shared = comparable(a.facts, a.values, b.values)
        if not shared:
            continue
        x, y = ([each.values[key] for key in shared] for each in (a, b))
        if not all(math.isfinite(pooled(v, pool=a.pool)) for v in (x, y)):
            continue
        by = difference(a.facts, a.pool, x, y, [cell.prompts[key] for key in shared])
        yield Contrast(cell.label, control.label, question, name, a.facts, by, len(shared))


def comparable(facts: Facts, a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """Return the images in which two cells can be compared: those that both have. For a distance both must
    have the same ones, because an image's share of it holds only within its whole set."""
    shared = [key for key in a if key in b]
    return [] if facts.kind == "distance" and not len(shared) == len(a) == len(b) else shared


def difference(
    facts: Facts, pool: Pool, x: Sequence[float], y: Sequence[float], prompts: Sequence[str]
) -> Interval:
    """Return x - y with its interval over the prompts; see `paired_difference`. Except for distances it is
    widened for failures that no image shows."""
    worse: Worse | None = None if facts.kind == "distance" else "either"
    return paired_difference(x, y, pool=pool, groups=prompts, worse=worse)


def of_rows(rows: Sequence[Row], versus: str | None) -> list[Contrast]:
    """Compare the rows of a table: all with the cell labelled `versus`, or the natural pairs."""
    subjects = [of_row(row) for row in rows]
    return against(subjects, subjects, versus) if versus else controlled(subjects)

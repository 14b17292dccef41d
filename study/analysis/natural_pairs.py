"""The natural pairs of a study: a method and its control, a composition and its part, a cache and step
reduction; each where the two cost about the same."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fovea.study.analysis.subjects import Node, Subject, kind

APART = 0.25  # of the cost, that a method and its control may differ by


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
STEPS = "a cache, a solver or fewer steps"
SIBLING = "a method or a sibling of its model that costs no more"


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

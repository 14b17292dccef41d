"""Decisions about a difference: is it significant among all comparisons of a table, and small enough?"""

import math
from collections.abc import Hashable, Mapping
from typing import Literal, TypeVar

from fovea.eval import Better
from fovea.eval.interval import Interval

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)
Verdict = Literal["non-inferior", "inferior", "undecided"]


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """Adjust p-values for all comparisons of the family (Holm 1979), under any dependence.

    Calling differences significant at an adjusted value of at most 0.05 bounds the probability of any false
    positive in the family by 5 %.
    """
    adjusted, largest = {}, 0.0
    for i, (key, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - i) * value))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p}


def differs(interval: Interval | None, p: float | None) -> bool:
    """True if a difference is significant: its adjusted p is at most 0.05 and its interval excludes zero.

    The interval may be wider than p implies, to allow for failures that no image shows.
    """
    return interval is not None and p is not None and p <= LEVEL and not interval.low <= 0 <= interval.high


def verdict(interval: Interval, better: Better, limit: float) -> Verdict:
    """Compare an interval with the worst acceptable value: non-inferior or inferior if it lies on one side.

    With 95 % bounds, either claim is wrong with probability 2.5 %. An interval that allows for unseen
    failures on the worse side leaves nearly all of the 5 % to the other, and so to inferior.
    """
    worse, best = interval.low, interval.high
    if better == "lower":
        worse, best, limit = -interval.high, -interval.low, -limit
    if interval.level <= 0 or math.isnan(worse) or math.isnan(best):  # no bounds
        return "undecided"
    return "non-inferior" if worse >= limit else "inferior" if best < limit else "undecided"

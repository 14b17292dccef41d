"""What a difference allows to say: is it real among the many of a table, and is it small enough?"""

import math
from collections.abc import Hashable, Mapping
from typing import Literal, TypeVar

from fovea.eval import Better
from fovea.eval.interval import Interval

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)
Verdict = Literal["non-inferior", "inferior", "undecided"]


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """p-values adjusted for all comparisons of the family (Holm 1979), whatever their dependence.

    To call differences real where the adjusted value is at most 0.05 is to err anywhere in the family with a
    probability of at most 5 %.
    """
    adjusted, largest = {}, 0.0
    for i, (key, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - i) * value))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p}


def differs(interval: Interval | None, p: float | None) -> bool:
    """Whether a difference is there beyond chance: its adjusted p is at most 0.05, and its interval, which
    may reach farther for failures that none of the images shows, leaves zero out."""
    return interval is not None and p is not None and p <= LEVEL and not interval.low <= 0 <= interval.high


def verdict(interval: Interval, better: Better, limit: float) -> Verdict:
    """Of an interval and the worst value that is acceptable: on which side of it the whole interval lies.

    With bounds of 95 % either claim is wrong with a probability of 2.5 %.
    """
    worse, best = interval.low, interval.high
    if better == "lower":
        worse, best, limit = -interval.high, -interval.low, -limit
    if interval.level <= 0 or math.isnan(worse) or math.isnan(best):  # an estimate without bounds
        return "undecided"
    return "non-inferior" if worse >= limit else "inferior" if best < limit else "undecided"

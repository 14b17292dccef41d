"""Noise-timestep distribution matching: shifts and noise coupling of RALU's stages (arXiv:2507.08422).

Time t runs from 0, noise, to 1, the image. A schedule of shift h visits t with density h / (1 + (h - 1) t)^2.
Stage k goes from s_k to e_k; the change of resolution after it throws the time back to s_{k+1} < e_k.
"""

import logging
from functools import cache

import numpy as np

logger = logging.getLogger(__name__)
GRID = np.linspace(0, 1, 1000)


def restart(end: float, c: float) -> tuple[float, float]:
    """Time s at which a stage starts after one that ended at time `end`, with noise coupling c, and s / end,
    which tokens are scaled by."""
    scale = 1 / ((1 - end) / c**0.5 + end)
    return end * scale, scale


def starts(ends, c: float) -> list[float]:
    """Time at which each stage starts."""
    return [0.0, *(restart(end, c)[0] for end in ends[:-1])]


def density(h: float, start: float, end: float) -> np.ndarray:
    """Of the times a schedule of shift h visits between start and end: (grid,)."""
    whole = [h * t / (1 + (h - 1) * t) for t in (start, end)]
    inside = (start <= GRID) & (end >= GRID)
    return inside * h / (1 + (h - 1) * GRID) ** 2 / (whole[1] - whole[0])


def distance(steps: tuple[int, ...], ends: tuple[float, ...], shifts, c: float, target: float) -> float:
    """Jensen-Shannon distance of the times that the stages visit from those they should: the whole schedule
    of shift `target` once, and again what each restart goes back over, by its length."""
    from scipy.spatial.distance import jensenshannon  # as late as this: it takes most of a second

    stages = zip(steps, shifts, starts(ends, c), ends, strict=True)
    visited = sum(n / sum(steps) * density(h, s, e) for n, h, s, e in stages)
    again = sum((e - s) * density(target, s, e) for e, s in zip(ends[:-1], starts(ends, c)[1:], strict=True))
    with np.errstate(invalid="ignore"):  # the root of a rounding error below 0
        return float(np.nan_to_num(jensenshannon(visited, density(target, 0.0, 1.0) + again)))


@cache
def matched(
    steps: tuple[int, ...], ends: tuple[float, ...], target: float
) -> tuple[tuple[float, ...], float, float]:
    """The shifts and the coupling c that minimise `distance`, and the distance (section 4.3).

    steps: of each stage. ends: time at which each ends, the last 1. target: shift of the schedule to match.
    Shifts are sought in [0.5, 10], 1 / sqrt(c) in [2, 100], from (3, ..., 3, 2), as the authors do.
    """
    from scipy.optimize import minimize

    stages = len(steps)
    bounds = [(0.5, 10.0)] * stages + [(2.0, 100.0)]
    found = minimize(
        lambda p: distance(steps, ends, p[:-1], p[-1] ** -2, target), [3.0] * stages + [2.0], bounds=bounds
    )
    *shifts, z = (float(p) for p in found.x)
    said = ", ".join(f"{h:.3f}" for h in shifts)
    text = "RALU's stages of %s steps matched to shift %.3g: shifts %s; c %.4f (distance %.3f)"
    logger.info(text, steps, target, said, z**-2, found.fun)
    return tuple(shifts), z**-2, float(found.fun)


def sigmas(steps: int, shift: float, start: float, end: float) -> np.ndarray:
    """Noise levels of one stage, (steps + 1,): from 1 - start to 1 - end, even before the shift."""
    first, last = (u / (shift - (shift - 1) * u) for u in (1 - start, 1 - end))
    u = np.linspace(first, last, steps + 1)
    return shift * u / (1 + (shift - 1) * u)


def stages(steps, ends, shifts, c: float) -> list[np.ndarray]:
    """Noise levels of every stage."""
    return [sigmas(*stage) for stage in zip(steps, shifts, starts(ends, c), ends, strict=True)]

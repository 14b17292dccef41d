"""Noise-timestep distribution matching: shifts and noise coupling of RALU's stages (arXiv:2507.08422).

Time t runs from 0 (noise) to 1 (image). A schedule with shift h visits times with density h / (1 + (h - 1)
t)^2. Stage k runs from s_k to e_k; the change of resolution after it sets the time back to s_{k+1} < e_k.
"""

import logging
from functools import cache

import numpy as np

logger = logging.getLogger(__name__)
GRID = np.linspace(0, 1, 1000)


def restart(end: float, c: float) -> tuple[float, float]:
    """Return the start time s of the stage after one ending at time `end`, and the tokens' factor s / end.

    c: noise coupling.
    """
    scale = 1 / ((1 - end) / c**0.5 + end)
    return end * scale, scale


def starts(ends, c: float) -> list[float]:
    """Return the start time of each stage."""
    return [0.0, *(restart(end, c)[0] for end in ends[:-1])]


def density(h: float, start: float, end: float) -> np.ndarray:
    """Return the density (grid,) of the times that a schedule with shift h visits between start and end."""
    whole = [h * t / (1 + (h - 1) * t) for t in (start, end)]
    inside = (start <= GRID) & (end >= GRID)
    return inside * h / (1 + (h - 1) * GRID) ** 2 / (whole[1] - whole[0])


def distance(steps: tuple[int, ...], ends: tuple[float, ...], shifts, c: float, target: float) -> float:
    """Jensen-Shannon distance between the times that the stages visit and those they should visit.

    The target is the whole schedule with shift `target`, plus each interval that a restart repeats, weighted
    by its length.
    """
    from scipy.spatial.distance import jensenshannon  # slow to import

    stages = zip(steps, shifts, starts(ends, c), ends, strict=True)
    visited = sum(n / sum(steps) * density(h, s, e) for n, h, s, e in stages)
    repeated = sum(
        (e - s) * density(target, s, e) for e, s in zip(ends[:-1], starts(ends, c)[1:], strict=True)
    )
    with np.errstate(invalid="ignore"):  # square root of a slightly negative rounding error
        return float(np.nan_to_num(jensenshannon(visited, density(target, 0.0, 1.0) + repeated)))


@cache
def match_shifts(
    steps: tuple[int, ...], ends: tuple[float, ...], target: float
) -> tuple[tuple[float, ...], float, float]:
    """Return the shifts and the coupling c that minimise `distance`, and the distance (section 4.3).

    steps: number of steps of each stage.
    ends: time at which each stage ends; the last is 1.
    target: shift of the schedule to match.

    Like the authors, searches shifts in [0.5, 10] and 1 / sqrt(c) in [2, 100], starting from (3, ..., 3, 2).
    """
    from scipy.optimize import minimize

    stages = len(steps)
    bounds = [(0.5, 10.0)] * stages + [(2.0, 100.0)]
    result = minimize(
        lambda p: distance(steps, ends, p[:-1], p[-1] ** -2, target), [3.0] * stages + [2.0], bounds=bounds
    )
    *shifts, z = (float(p) for p in result.x)
    listed = ", ".join(f"{h:.3f}" for h in shifts)
    text = "RALU's stages of %s steps matched to shift %.3g: shifts %s; c %.4f (distance %.3f)"
    logger.info(text, steps, target, listed, z**-2, result.fun)
    return tuple(shifts), z**-2, float(result.fun)


def sigmas(steps: int, shift: float, start: float, end: float) -> np.ndarray:
    """Return a stage's noise levels (steps + 1,) from 1 - start to 1 - end: evenly spaced, then shifted."""
    first, last = (u / (shift - (shift - 1) * u) for u in (1 - start, 1 - end))
    u = np.linspace(first, last, steps + 1)
    return shift * u / (1 + (shift - 1) * u)


def stages(steps, ends, shifts, c: float) -> list[np.ndarray]:
    """Return the noise levels of every stage."""
    return [sigmas(*stage) for stage in zip(steps, shifts, starts(ends, c), ends, strict=True)]

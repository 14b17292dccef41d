"""Named settings of RALU, from Table S1 of the paper and from the released code (arXiv:2507.08422)."""

from itertools import pairwise
from math import inf
from typing import Literal, NamedTuple

Shifts = tuple[float, ...]


class Preset(NamedTuple):
    """Settings of RALU's stages. Shifts are empty and c is 0 if they are to be matched.

    steps: number of steps of each stage.
    ends: time at which each stage ends; 1 is the image.
    shifts: shift of each stage's schedule.
    c: coupling of the noise of a token's four copies.
    ratio: share of the half-resolution tokens that stage 2 refines to full resolution.
    """

    steps: tuple[int, ...]
    ends: tuple[float, ...]
    shifts: Shifts
    c: float
    ratio: float

    def override(
        self,
        total: int | None,
        steps: tuple[int, ...] | None,
        ends: tuple[float, ...] | None,
        shifts: Shifts | Literal["auto"] | None,
        c: float | None,
        ratio: float | None,
    ) -> "Preset":
        """Return the preset with the given settings replaced.

        Shifts and coupling are valid only for the stages and ends they were made for; otherwise they are left
        to be matched. ValueError if the settings are inconsistent.
        """
        if total is not None and steps is not None:
            raise ValueError(f"steps={total}, stages={list(steps)}: give one of them")
        steps = steps or distribute_steps(total, self.steps)
        ends = ends or (self.ends if len(steps) > 1 else (1.0,))
        if len(ends) != len(steps):
            raise ValueError(f"stages={list(steps)}, ends={list(ends)}: there must be one end per stage")
        if not all(0 < a < b for a, b in pairwise((*ends, inf))) or ends[-1] != 1:
            raise ValueError(f"ends={list(ends)}: must ascend from above 0 to 1, the image")
        given = shifts if shifts and shifts != "auto" else None
        if given and len(given) != len(steps):
            raise ValueError(f"stages={list(steps)}, shifts={list(given)}: there must be one shift per stage")
        own = (steps, ends) == (self.steps, self.ends) and shifts != "auto"
        curve, coupling = (given or self.shifts, c or self.c) if own or given else ((), 0.0)
        if curve and not coupling:
            raise ValueError(f"shifts={list(curve)}: need a coupling c, at most 0.25")
        if c and not curve:
            raise ValueError(f"c={c}: is matched together with the shifts; give both or neither")
        return Preset(steps, ends, curve, coupling, self.ratio if ratio is None else ratio)


PRESETS = {
    "flux_5x": Preset((4, 5, 6), (0.3, 0.45, 1.0), (5.12, 2.64, 2.25), 0.0177, 0.2),
    "flux_7x": Preset((2, 3, 5), (0.2, 0.3, 1.0), (8.14, 2.86, 2.19), 0.0255, 0.2),
    "sd3_2x": Preset((5, 6, 9), (0.2, 0.3, 1.0), (6.21, 2.23, 1.97), 0.0586, 0.3),
    "sd3_3x": Preset((3, 3, 6), (0.25, 0.3, 1.0), (6.40, 2.60, 2.23), 0.0255, 0.2),
    "released_4x": Preset((5, 6, 7), (0.3, 0.45, 1.0), (5.019, 2.589, 2.226), 6.317**-2, 0.3),
    "released_7x": Preset((2, 3, 5), (0.2, 0.3, 1.0), (8.141, 2.856, 2.193), 6.261**-2, 0.1),
    "distilled_4nfe": Preset((1, 1, 2), (0.3, 0.45, 1.0), (), 0.0, 0.2),
}


def distribute_steps(total: int | None, steps: tuple[int, ...]) -> tuple[int, ...]:
    """Distribute `total` steps over the stages in proportion to `steps`, at least one each.

    Returns `steps` if total is None. ValueError if there are fewer steps than stages.
    """
    if total is None:
        return steps
    if total < len(steps):
        raise ValueError(f"steps={total}: must be at least {len(steps)}, one for each stage")
    parts = [max(1, total * n // sum(steps)) for n in steps]
    while sum(parts) != total:
        grow = 1 if sum(parts) < total else -1
        gap = [
            grow * (total * n / sum(steps) - p) if p + grow > 0 else -inf
            for n, p in zip(steps, parts, strict=True)
        ]
        parts[gap.index(max(gap))] += grow
    return tuple(parts)


def match_shifts(preset: Preset, target: float) -> Preset:
    """Return the preset with open shifts and coupling matched to a schedule with shift `target`."""
    from fovea.methods import ntdm  # imports numpy and scipy

    if preset.shifts:
        return preset
    shifts, c, _ = ntdm.match_shifts(preset.steps, preset.ends, target)
    return preset._replace(shifts=shifts, c=c)

"""MagCache: skip the blocks while the known ratios of residual magnitudes stay near 1 (arXiv:2506.09045)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class MagCache(Cache):
    """The product of the ratios since the blocks last ran tells how far their residual has drifted. While the
    sum of its deviations from 1 is small, the last residual is reused.

    threshold: bound on the summed deviation.
    max_skips: maximum number of steps skipped in a row.
    retention: share of first steps that all run.
    ratios: mean magnitude of each step's residual relative to the previous step, one per step of a full run;
        a run with another number of steps uses the nearest. Published for FLUX.1; `python -m
        scripts.calibrate` measures them for other models.
    as_released: always run the step that corresponds to step 11 of 28 (from 0), as the authors' code for FLUX
        does (Zehong-Ma/MagCache, 1a66b6d) and diffusers does not.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.06
    max_skips: Annotated[int, Field(ge=0)] = 3
    retention: Annotated[float, Field(ge=0, le=1)] = 0.2
    ratios: tuple[float, ...] | None = None
    as_released: bool = False

    off: ClassVar = {"max_skips": 0}

    def __post_init__(self):
        if not self.ratios:
            raise ValueError(
                "ratios=null: MagCache's are measured on a model, and there are none for this one; "
                "`python -m scripts.calibrate model=NAME` measures them and prints what to put into its file"
            )

    def runs(self, steps: int) -> list[bool]:
        """Return for each of `steps` steps whether it runs; this is known in advance."""
        ratios, runs = self.ratios or (), []
        ratio, skipped, error = 1.0, 0, 0.0
        for i in range(steps):
            if i >= int(self.retention * steps + 0.5):
                ratio *= ratios[round(i * (len(ratios) - 1) / max(steps - 1, 1))]
                skipped, error = skipped + 1, error + abs(1 - ratio)
            skip = i > 0 and 0 < skipped <= self.max_skips and error <= self.threshold
            skip = skip and not (self.as_released and round(i * 27 / max(steps - 1, 1)) == 11)
            if not skip:
                ratio, skipped, error = 1.0, 0, 0.0
            runs.append(not skip)
        return runs

    def saves(self, steps):
        return not all(self.runs(steps))

    def start(self, flow, steps):
        plan, residual = self.runs(steps), None

        def velocity(step, x, sigma, encodings=None):
            nonlocal residual
            e = flow.prepare(x, sigma, encodings)
            h, residual = e.run_or_reuse(e.hidden, residual, [plan[step]] * len(flow.generators))
            return e.velocity(h)

        return velocity

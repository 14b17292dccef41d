"""TeaCache: skip the blocks while their input has hardly changed (Liu et al. 2024, arXiv:2411.19108)."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache


@dataclass(frozen=True, config={"extra": "forbid"})
class TeaCache(Cache):
    """While the estimated change of the output, summed since the blocks last ran, stays below the threshold,
    what they added then is added again. First and last step always run; each image decides for itself.

    coefficients: of the polynomial, highest power first, that maps the relative L1 change of the first
    block's modulated input to that of the output (section 3.3). They are the model's: published for FLUX and
    Lumina-Next, fitted by `python -m scripts.calibrate` for others.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.3
    coefficients: tuple[float, ...] | None = None

    off: ClassVar = {"threshold": 0.0}

    def __post_init__(self):
        if not self.coefficients:
            raise ValueError(
                "coefficients=null: TeaCache's are fitted to a model, and there are none for this one; "
                "`python -m scripts.calibrate model=NAME` fits them and prints what to put into its file"
            )

    def saves(self, steps):
        return steps > 2  # the first and the last run

    def start(self, flow, steps):
        drift, before, residual = [0.0] * len(flow.generators), None, None

        def velocity(step, x, sigma, places=None):
            nonlocal drift, before, residual
            e = flow.open(x, sigma, places)
            now = e.modulated()
            due = [True] * len(drift)
            if 0 < step < steps - 1:
                drift = [d + self.rescaled(c) for d, c in zip(drift, e.change(now, before), strict=True)]
                due = [not d < self.threshold or not self.threshold for d in drift]
            drift = [0.0 if renewed else d for d, renewed in zip(drift, due, strict=True)]
            h, residual = e.renew(e.hidden, residual, due)
            before = now
            return e.velocity(h)

        return velocity

    def rescaled(self, change: float) -> float:
        """The polynomial, by Horner's rule."""
        total = 0.0
        for coefficient in self.coefficients or ():
            total = total * change + coefficient
        return total

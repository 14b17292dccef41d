"""TeaCache: skip the blocks while their input has hardly changed (Liu et al. 2024, arXiv:2411.19108)."""

from pydantic.dataclasses import dataclass

from fovea.methods.gate import Gate


@dataclass(frozen=True, config={"extra": "forbid"})
class TeaCache(Gate):
    """The gate over the first block's modulated input, whose change is rescaled to that of the output.

    coefficients: of the polynomial, highest power first, that maps the one change to the other (section 3.3).
    They are the model's: published for FLUX and Lumina-Next, fitted by `python -m scripts.calibrate` for
    others.
    """

    coefficients: tuple[float, ...] | None = None

    def __post_init__(self):
        if not self.coefficients:
            raise ValueError(
                "coefficients=null: TeaCache's are fitted to a model, and there are none for this one; "
                "`python -m scripts.calibrate model=NAME` fits them and prints what to put into its file"
            )

    def watched(self, flow, e, x, sigma, encodings):
        return e.modulated()

    def rescaled(self, change: float) -> float:
        """The polynomial, by Horner's rule."""
        total = 0.0
        for coefficient in self.coefficients or ():
            total = total * change + coefficient
        return total

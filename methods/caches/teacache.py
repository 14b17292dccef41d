"""TeaCache: skip the blocks while their input has hardly changed (Liu et al. 2024, arXiv:2411.19108)."""

from pydantic.dataclasses import dataclass

from fovea.methods.gate import Gate


@dataclass(frozen=True, config={"extra": "forbid"})
class TeaCache(Gate):
    """A gate on the modulated input of the first block, whose change is rescaled to the change of the output.

    coefficients: polynomial from input change to output change, highest power first (section 3.3). Published
        for FLUX and Lumina-Next; `python -m scripts.calibrate` fits them for other models.
    """

    coefficients: tuple[float, ...] | None = None

    def __post_init__(self):
        if not self.coefficients:
            raise ValueError(
                "coefficients=null: TeaCache's are fitted to a model, and there are none for this one; "
                "`python -m scripts.calibrate model=NAME` fits them and prints what to put into its file"
            )

    def indicator_of(self, flow, e, x, sigma, encodings):
        return e.modulated()

    def rescale(self, change: float) -> float:
        """Evaluate the polynomial by Horner's rule."""
        total = 0.0
        for coefficient in self.coefficients or ():
            total = total * change + coefficient
        return total

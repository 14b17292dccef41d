"""Taylor forecasts of tensors from their own backward differences (TaylorSeer, arXiv:2503.06923)."""

from math import factorial

from torch import Tensor

from methods.tokens import take

Values = tuple[Tensor, ...]


class Forecast:
    """The series about the last value known, up to `order`, in the number of steps since (eqs. 9 to 11).

    Differences are divided by the distance of the steps they span, so that steps need not be even. An order
    is used as soon as there are values for it.
    """

    def __init__(self, order: int):
        self.order, self.step, self.terms = order, 0, list[Values]()

    def update(self, step: int, values: Values) -> None:
        terms = [values]
        for before in self.terms[: self.order]:
            terms.append(tuple((a - b) / (step - self.step) for a, b in zip(terms[-1], before, strict=True)))
        self.step, self.terms = step, terms

    def at(self, step: int) -> Values:
        ahead = step - self.step
        found = self.terms[0]
        for j, term in enumerate(self.terms[1:], 1):
            found = tuple(f + t * (ahead**j / factorial(j)) for f, t in zip(found, term, strict=True))
        return found

    def carry(self, parents: Tensor) -> None:
        """Goes on with another set of tokens: each inherits the history of its parent, (b, m) row numbers of
        the old set."""
        self.terms = [tuple(take(t, parents) for t in values) for values in self.terms]

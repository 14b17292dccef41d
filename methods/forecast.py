"""Forecasts of tensors from their own backward differences (TaylorSeer, arXiv:2503.06923)."""

from collections.abc import Callable
from math import factorial

import torch
from torch import Tensor

from fovea.methods.tokens import put
from fovea.models.tokens import take

Values = tuple[Tensor, ...]


def taylor(order: int, ahead: int) -> float:
    """Return the Taylor coefficient of the difference of this order, `ahead` steps ahead."""
    return ahead**order / factorial(order)


class Differences:
    """Taylor series around the last value, up to `order`, in steps since then (eqs. 9 to 11).

    Differences are divided by the number of steps they span, so steps may be unevenly spaced. An order is
        used as soon as there are enough values. If a step is recorded twice, the last value counts: Heun's
        method evaluates each noise level twice.

    since: first step at which differences are formed.
    share: coefficient of each order.
    """

    def __init__(self, order: int, since: int = 0, share: Callable[[int, int], float] = taylor):
        self.order, self.since, self.share = order, since, share
        self.step, self.gap, self.terms = 0, 0, list[Values]()

    def update(self, step: int, values: Values) -> None:
        if self.terms and step == self.step:
            return self.replace(values)
        terms, gap = [values], step - self.step
        for before in self.terms[: self.order if step >= self.since else 0]:
            terms.append(tuple((a - b) / gap for a, b in zip(terms[-1], before, strict=True)))
        self.step, self.gap, self.terms = step, gap, terms

    def replace(self, values: Values) -> None:
        """Replace the last values by others of the same step and update the differences accordingly."""
        moved = tuple(a - b for a, b in zip(values, self.terms[0], strict=True))
        for j, term in enumerate(self.terms[1:], 1):
            self.terms[j] = tuple(t + m / self.gap**j for t, m in zip(term, moved, strict=True))
        self.terms[0] = values

    def at(self, step: int) -> Values:
        ahead = step - self.step
        found = self.terms[0]
        for j, term in enumerate(self.terms[1:], 1):
            share = self.share(j, ahead)
            found = tuple(f + t * share for f, t in zip(found, term, strict=True))
        return found

    def carry(self, parents: Tensor) -> None:
        """Continue with another set of tokens, each with its parent's history.

        parents: (b, m), row numbers in the old set.
        """
        self.terms = [tuple(take(t, parents) for t in values) for values in self.terms]


class TokenForecast:
    """Forecast of a velocity (b, n, c) from the last two values of each token.

    Tokens may have been evaluated at different steps.

    order: 0 keeps only the last value.
    """

    def __init__(self, order: int):
        self.order = order
        self.value = self.slope = torch.empty(0)  # (b, n, c); the slope is 0 until there are two values
        self.seen = torch.empty(0)  # (b, n, 1): step of the last value

    def update(self, step: int, value: Tensor, rows: Tensor | None = None) -> None:
        """Record values (b, n, c), or (b, k, c) at the given rows (b, k)."""
        if self.order:
            self._learn(step, value, rows)
        self.value = value if rows is None else put(self.value, rows, value)

    def _learn(self, step: int, value: Tensor, rows: Tensor | None) -> None:
        if not len(self.value):
            self.slope = torch.zeros_like(value)
            self.seen = torch.full_like(value[..., :1], step, dtype=torch.float32)
            return
        before, seen = (t if rows is None else take(t, rows) for t in (self.value, self.seen))
        slope, now = ((value - before) / (step - seen)).to(value.dtype), torch.full_like(seen, step)
        if rows is not None:
            slope, now = put(self.slope, rows, slope), put(self.seen, rows, now)
        self.slope, self.seen = slope, now

    def at(self, step: int, order: int) -> Tensor:
        """Return the last values (order 0), or extrapolate linearly from the last two (order 1)."""
        if order == 0:
            return self.value
        return (self.value + self.slope * (step - self.seen)).to(self.value.dtype)

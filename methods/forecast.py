"""Forecasts of tensors from their own backward differences (TaylorSeer, arXiv:2503.06923)."""

from collections.abc import Callable
from math import factorial

import torch
from torch import Tensor

from fovea.methods.tokens import scatter_tokens
from fovea.models.tokens import gather_tokens

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
    coefficient: coefficient of each order.
    """

    def __init__(self, order: int, since: int = 0, coefficient: Callable[[int, int], float] = taylor):
        self.order, self.since, self.coefficient = order, since, coefficient
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
        change = tuple(a - b for a, b in zip(values, self.terms[0], strict=True))
        for j, term in enumerate(self.terms[1:], 1):
            self.terms[j] = tuple(t + m / self.gap**j for t, m in zip(term, change, strict=True))
        self.terms[0] = values

    def predict(self, step: int) -> Values:
        ahead = step - self.step
        forecast = self.terms[0]
        for j, term in enumerate(self.terms[1:], 1):
            coefficient = self.coefficient(j, ahead)
            forecast = tuple(f + t * coefficient for f, t in zip(forecast, term, strict=True))
        return forecast

    def inherit(self, parents: Tensor) -> None:
        """Continue with another set of tokens, each with its parent's history.

        parents: (b, m), row numbers in the old set.
        """
        self.terms = [tuple(gather_tokens(t, parents) for t in values) for values in self.terms]


class TokenForecast:
    """Forecast of a velocity (b, n, c) from the last two values of each token.

    Tokens may have been evaluated at different steps.

    order: 0 keeps only the last value.
    """

    def __init__(self, order: int):
        self.order = order
        self.value = self.slope = torch.empty(0)  # (b, n, c); the slope is 0 until there are two values
        self.last_step = torch.empty(0)  # (b, n, 1): step of the last value

    def update(self, step: int, value: Tensor, rows: Tensor | None = None) -> None:
        """Record values (b, n, c), or (b, k, c) at the given rows (b, k)."""
        if self.order:
            self._update_slope(step, value, rows)
        self.value = value if rows is None else scatter_tokens(self.value, rows, value)

    def _update_slope(self, step: int, value: Tensor, rows: Tensor | None) -> None:
        if not len(self.value):
            self.slope = torch.zeros_like(value)
            self.last_step = torch.full_like(value[..., :1], step, dtype=torch.float32)
            return
        before, last_step = (
            t if rows is None else gather_tokens(t, rows) for t in (self.value, self.last_step)
        )
        slope, now = ((value - before) / (step - last_step)).to(value.dtype), torch.full_like(last_step, step)
        if rows is not None:
            slope, now = scatter_tokens(self.slope, rows, slope), scatter_tokens(self.last_step, rows, now)
        self.slope, self.last_step = slope, now

    def predict(self, step: int, order: int) -> Tensor:
        """Return the last values (order 0), or extrapolate linearly from the last two (order 1)."""
        if order == 0:
            return self.value
        return (self.value + self.slope * (step - self.last_step)).to(self.value.dtype)

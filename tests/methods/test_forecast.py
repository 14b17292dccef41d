"""methods/forecast.py: Taylor series whose derivatives are backward differences; and of tokens with histories
of their own."""

from math import factorial

import pytest
import torch

from fovea.methods.forecast import Differences, TokenForecast

EVEN, UNEVEN = (0, 3, 6, 9, 12), (0, 1, 2, 5, 9)


def forecast(order, steps, f):
    series = Differences(order)
    for step in steps:
        series.update(step, (f(step),))
    return series


def polynomial(degree):
    coefficients = torch.randn(degree + 1, 2, 5, generator=torch.Generator().manual_seed(degree)).double()
    return lambda t: sum(c * t**j for j, c in enumerate(coefficients)), coefficients


@pytest.mark.parametrize("steps", [EVEN, UNEVEN])
@pytest.mark.parametrize("ahead", [0, 1, 2, 7])
@pytest.mark.parametrize(("order", "degree"), [(0, 0), (1, 0), (1, 1), (2, 1), (3, 1)])
def test_a_line_is_met_at_even_and_uneven_steps(steps, ahead, order, degree):
    f, _ = polynomial(degree)
    found = forecast(order, steps, f).predict(steps[-1] + ahead)[0]
    torch.testing.assert_close(found, f(steps[-1] + ahead), rtol=0, atol=1e-11)


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_a_parabola_is_missed_by_what_a_difference_misses_of_a_derivative(ahead):
    """The first backward difference of a t^2 at distance h is the derivative less a h: eq. 11 carries that
    along, so that no order meets a parabola."""
    f, coefficients = polynomial(2)
    missed = f(12 + ahead) - forecast(2, EVEN, f).predict(12 + ahead)[0]
    torch.testing.assert_close(missed, ahead * 3 * coefficients[2], rtol=0, atol=1e-10)


def test_differences_are_those_of_the_steps_they_span():
    """By hand, order 2, at steps 0, 2, 5, with the values 1, 5, 14."""
    series = Differences(2)
    for step, value in ((0, 1.0), (2, 5.0), (5, 14.0)):
        series.update(step, (torch.tensor([[value]]),))
    first = (14 - 5) / 3
    second = (first - (5 - 1) / 2) / 3
    assert series.predict(7)[0].item() == pytest.approx(14 + 2 * first + 2**2 / 2 * second)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_formula_at_even_steps(order):
    """Eq. 9 to 11 of arXiv:2503.06923 with binomial differences of the last values."""
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    series = forecast(order, range(0, 24, 4), lambda t: values[t // 4])
    expected = values[-1].clone()
    for i in range(1, order + 1):
        difference = torch.zeros(4).double()
        for j in range(i + 1):
            difference += (-1) ** j * factorial(i) / (factorial(j) * factorial(i - j)) * values[-1 - j]
        expected += difference / (factorial(i) * 4**i) * 3**i
    torch.testing.assert_close(series.predict(23)[0], expected, rtol=0, atol=1e-12)


def test_an_order_waits_for_its_values():
    f, _ = polynomial(2)
    for count in (1, 2, 3):
        few = forecast(3, EVEN[:count], f).predict(20)[0]
        assert torch.equal(few, forecast(count - 1, EVEN[:count], f).predict(20)[0])


def test_no_difference_spans_the_steps_before_the_first_that_forms_one():
    """TaylorSeer's authors: a warm-up of three steps leaves one difference, not two (values are squares)."""
    square = lambda t: torch.tensor([float(t * t)])  # noqa: E731
    late, early = Differences(3, since=2), Differences(3)
    orders = []
    for step in (0, 1, 2, 6, 10):
        for series in (late, early):
            series.update(step, (square(step),))
        orders.append((len(late.terms) - 1, len(early.terms) - 1))
    assert orders == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 3)]
    late = Differences(3, since=2)
    for step in (0, 1, 2):
        late.update(step, (square(step),))
    assert late.predict(4)[0].item() == 4 + (4 - 1) * 2


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_of_one_step_evaluated_twice_the_later_counts(order):
    """As by Heun's method: the series is that of the later values alone."""
    values = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(5)).double()
    twice, once = Differences(order), Differences(order)
    for i, step in enumerate((0, 1, 2, 5, 9, 10)):
        twice.update(step, (values[0][i],))
        twice.update(step, (values[1][i],))
        once.update(step, (values[1][i],))
        torch.testing.assert_close(twice.predict(step + 2), once.predict(step + 2), rtol=0, atol=1e-12)


def test_children_inherit_the_series_of_their_parent():
    f = lambda t: torch.arange(6.0).view(1, 3, 2) * t**2  # noqa: E731
    series, parents = forecast(2, UNEVEN, f), torch.tensor([[2, 2, 0, 1]])
    before = series.predict(11)[0]
    series.inherit(parents)
    assert torch.equal(series.predict(11)[0], before[:, parents[0]])


@pytest.mark.parametrize("order", [0, 1])
def test_each_token_is_forecast_from_its_own_last_two_values(order):
    generator = torch.Generator().manual_seed(3)
    memory, known = TokenForecast(order), [[[] for _ in range(6)] for _ in range(2)]
    for step, k in ((0, 6), (1, 2), (2, 6), (4, 3), (5, 1), (9, 3)):
        rows = torch.stack([torch.randperm(6, generator=generator)[:k] for _ in range(2)])
        value = torch.randn(2, k, 4, generator=generator)
        if k == 6:
            rows = torch.arange(6).expand(2, -1)
        memory.update(step, value, None if k == 6 else rows)
        for b, i in ((b, i) for b in range(2) for i in range(k)):
            known[b][rows[b, i]].append((step, value[b, i]))
        for ahead in (0, 1, 3):
            found = memory.predict(step + ahead, order)
            for b, n in ((b, n) for b in range(2) for n in range(6)):
                (seen, last), *before = known[b][n][::-1]
                expected = last
                if order and before:
                    expected = last + (last - before[0][1]) / (seen - before[0][0]) * (step + ahead - seen)
                torch.testing.assert_close(found[b, n], expected, rtol=0, atol=1e-5)


def test_a_memory_of_order_one_still_has_the_last_values():
    memory = TokenForecast(1)
    for step in (0, 1):
        memory.update(step, torch.full((1, 3, 2), float(step)))
    assert torch.equal(memory.predict(5, 0), torch.ones(1, 3, 2))
    assert torch.equal(memory.predict(5, 1), torch.full((1, 3, 2), 5.0))

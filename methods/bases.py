"""Bases of a forecast: extrapolate a tensor from its values at earlier steps.

A basis records values with `update(step, values)` and forecasts with `predict(step)`, steps in ascending
order. If a step is recorded or forecast twice, the last value counts. Except for `DynamicModes`, every basis
is a weighted sum y(t) = sum_j w_j y_j whose weights depend on the steps alone, so it never synchronises with
the device.
"""

from collections.abc import Callable, Sequence
from math import factorial
from typing import Protocol, runtime_checkable

import torch
from numpy.polynomial import chebyshev
from numpy.polynomial.hermite import hermval
from torch import Tensor

from fovea.methods.forecast import Differences, Values

HISTORY = 6  # snapshots used to find modes


@runtime_checkable
class Basis(Protocol):
    """The forecast at one site: one tensor or tuple of tensors."""

    def update(self, step: int, values: Values) -> None: ...

    def predict(self, step: int) -> Values: ...


def damped_taylor(damping: float) -> Callable[[int, int], float]:
    """Taylor series with each order damped: the control that HiCache has to beat."""
    return lambda order, ahead: damping ** (2 * order) * ahead**order / factorial(order)


def hermite(damping: float) -> Callable[[int, int], float]:
    """HiCache (arXiv:2508.16984), eq. 9: physicists' Hermite polynomials of damped steps.

    With damping 1/2, order 1 has half the slope of Taylor's.
    """
    return lambda order, ahead: (
        damping**order * float(hermval(damping * ahead, [0] * order + [1])) / factorial(order)
    )


class Weighted:
    """Weighted sum of all recorded values.

    weights(known_steps, step): weights of the values at `known_steps`, oldest first.
    include_forecasts: also record forecasts as values.
    history: number of values to keep.
    """

    def __init__(
        self,
        weights: Callable[[Sequence[int], int], Sequence[float]],
        include_forecasts: bool,
        history: int = 10_000,
    ):
        self.weights, self.include_forecasts, self.history = weights, include_forecasts, history
        self.values: dict[int, Values] = {}

    def update(self, step: int, values: Values) -> None:
        self.values[step] = values
        for old in [*self.values][: -self.history]:
            del self.values[old]

    def predict(self, step: int) -> Values:
        known_steps = {s: values for s, values in self.values.items() if s < step}
        forecast = weighted_sum(self.weights([*known_steps], step), [*known_steps.values()])
        if self.include_forecasts:
            self.update(step, forecast)
        return forecast


def weighted_sum(weights: Sequence[float], values: Sequence[Values]) -> Values:
    """Return the weighted sum of values.

    Zero weights are skipped, so that a single weight of 1 returns the value itself.
    """
    parts = [(w, y) for w, y in zip(weights, values, strict=True) if w]
    if len(parts) == 1 and parts[0][0] == 1:
        return parts[0][1]
    sums = (
        sum(w * y.float() for w, y in zip([w for w, _ in parts], site, strict=True))
        for site in zip(*(y for _, y in parts), strict=True)
    )
    return tuple(
        (s if isinstance(s, Tensor) else torch.zeros_like(y)).to(y.dtype)
        for s, y in zip(sums, values[-1], strict=True)
    )


def spectral(
    steps: int, degree: int, ridge: float, shrink_mean: bool
) -> Callable[[Sequence[int], int], Sequence[float]]:
    """Spectrum (arXiv:2603.01623): ridge regression of all known values on Chebyshev polynomials of the step.

    The ridge also shrinks the mean, by 5 to 27 %. Set shrink_mean=False where no normalisation follows to
    undo this.
    """
    penalty = ridge * torch.eye(degree + 1, dtype=torch.float64)
    penalty[0, 0] *= shrink_mean

    def design(at: Sequence[int]) -> Tensor:
        return torch.from_numpy(chebyshev.chebvander([2 * t / steps - 1 for t in at], degree))

    def weights(known_steps: Sequence[int], step: int) -> list[float]:
        seen = design(known_steps)
        return (design([step]) @ torch.linalg.solve(seen.T @ seen + penalty, seen.T))[0].tolist()

    return weights


def mean_velocity(sigmas: Sequence[float], window: int) -> Callable[[Sequence[int], int], Sequence[float]]:
    """MeanCache (arXiv:2601.19961): extrapolate the last velocity from the mean velocity over a window.

    The last velocity is corrected by the difference between the window's mean and its first velocity, scaled
    by the step relative to the window, both in sigma. The mean is weighted by step size, as in Euler's
    method. Forecasts count as values. A window of 1 is plain reuse.

    sigmas: noise levels of all steps.
    """

    def weights(known_steps: Sequence[int], step: int) -> list[float]:
        past = [*known_steps][-window:]
        if len(past) == 1:
            return [0.0] * (len(known_steps) - 1) + [1.0]
        step_sizes = [sigmas[t + 1] - sigmas[t] for t in past]
        ahead = (sigmas[step + 1] - sigmas[step]) / sum(step_sizes)
        window_weights = [ahead * step_size / sum(step_sizes) for step_size in step_sizes]
        window_weights[0] -= ahead
        window_weights[-1] += 1
        return [0.0] * (len(known_steps) - len(past)) + window_weights

    return weights


def fitted_weights(table: Sequence[Sequence[float]]) -> Callable[[Sequence[int], int], Sequence[float]]:
    """L2P (arXiv:2604.26365): forecast each step from all earlier ones, forecasts included.

    table: weights of each step, fitted by least squares to dense runs (`python -m scripts.calibrate`).
    """
    return lambda known_steps, step: table[step][: len(known_steps)]


class Foca:
    """FoCa as in cache-dit (1.5, FoCaCalibrator), which differs from the paper (arXiv:2508.16211).

    Extrapolates the last evaluated value by the mean of two differences: between the last two evaluated
    values, and between the last two values of either kind (evaluated or forecast). Neither is divided by the
    number of steps it spans. Beyond three steps the correction decays towards zero.
    """

    HORIZON = 3

    def __init__(self):
        self.evaluated: dict[int, Values] = {}  # last two evaluated values
        self.recent: dict[int, Values] = {}  # last three values, evaluated or forecast

    def update(self, step: int, values: Values) -> None:
        self.evaluated = latest({**self.evaluated, step: values}, 2)
        self.recent = latest({**self.recent, step: values}, 3)

    def predict(self, step: int) -> Values:
        (now, *full), recent = (
            [*self.evaluated.values()][::-1],
            [y for s, y in self.recent.items() if s < step][::-1],
        )
        if not full:
            return now
        ahead = step - max(self.evaluated)
        reach = min(ahead, self.HORIZON) / 2 * min(1.0, self.HORIZON / ahead)
        forecast = tuple(
            a + reach * ((a - b) + (c - d))
            for a, b, c, d in zip(now, full[0], recent[0], recent[1], strict=True)
        )
        self.recent = latest({**self.recent, step: forecast}, 3)
        return forecast


def latest(values: dict[int, Values], n: int) -> dict[int, Values]:
    """Return the values of the last n steps."""
    return {step: values[step] for step in sorted(values)[-n:]}


class DynamicModes:
    """Dynamic mode decomposition (Schmid 2010; cache-dit 1.5, DMDCalibrator).

    Finds, per image, the linear map that takes each value to the next at evenly spaced steps, and
    extrapolates with powers of its eigenvalues. With fewer than four such values it falls back to a
    first-order Taylor series.

    Everything is computed from inner products of the values, so there is one device synchronisation per
    recorded value.
    """

    def __init__(self, since: int = 0):
        self.series = Differences(1, since)
        self.values: dict[int, Values] = {}
        self.modes: list[list[tuple[Tensor, Tensor, Tensor] | None]] | None = None  # [tensor][image]

    def update(self, step: int, values: Values) -> None:
        self.series.update(step, values)
        self.values, self.modes = latest({**self.values, step: values}, HISTORY), None

    def predict(self, step: int) -> Values:
        steps = even_tail([*self.values])
        if len(steps) < 4:
            return self.series.predict(step)
        tensors = [*zip(*(self.values[s] for s in steps), strict=True)]
        if self.modes is None:
            self.modes = [[dynamic_modes(gram) for gram in gram_matrices(snapshots)] for snapshots in tensors]
        ahead = (step - steps[-1]) / (steps[-1] - steps[-2])
        return tuple(
            combine(snapshots, [powers(image, ahead, len(steps)) for image in images])
            for snapshots, images in zip(tensors, self.modes, strict=True)
        )


def even_tail(steps: Sequence[int]) -> list[int]:
    """Return the longest evenly spaced tail of `steps`."""
    tail = [*steps][-2:]
    for step in [*steps][-3::-1]:
        if tail[0] - step != tail[1] - tail[0]:
            break
        tail.insert(0, step)
    return tail


def gram_matrices(snapshots: Sequence[Tensor]) -> Tensor:
    """Return the Gram matrix per image of n tensors (b, ...): (b, n, n), float64 on the CPU."""
    flat = torch.stack([y.double().flatten(1) for y in snapshots], 1)  # (b, n, ...)
    return (flat @ flat.mT).cpu()


def dynamic_modes(gram: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Decompose the map that advances snapshots by one step. gram: Gram matrix of n snapshots, (n, n).

    Returns the eigenvalues (r,), the modes (n - 1, r) as coefficients of the snapshots after the first, and
    the modes' amplitudes in the last snapshot (r,); None if there are no modes.
    """
    before, across, after = gram[:-1, :-1], gram[:-1, 1:], gram[1:, 1:]
    eigenvalues, right = torch.linalg.eigh(before)
    kept = eigenvalues > 1e-8 * eigenvalues[-1]  # singular values above 1e-4 of the largest
    if not bool(kept.any()) or not bool(gram.isfinite().all()):
        return None
    half = right[:, kept] / (eigenvalues[kept].sqrt() + 1e-8)
    values, vectors = torch.linalg.eig((right[:, kept] / eigenvalues[kept].sqrt()).T @ across @ half)
    eigenmodes = half.to(vectors.dtype) @ vectors
    weight = after.to(vectors.dtype)
    amplitudes = torch.linalg.lstsq(
        eigenmodes.mH @ weight @ eigenmodes, eigenmodes.mH @ weight[:, -1:]
    ).solution[:, 0]
    return values, eigenmodes, amplitudes


def powers(modes: tuple[Tensor, Tensor, Tensor] | None, ahead: float, n: int) -> Tensor:
    """Return the weights (n,) of n snapshots for a forecast; plain reuse without modes or on overflow."""
    reuse = torch.zeros(n, dtype=torch.float64)
    reuse[-1] = 1
    if modes is None:
        return reuse
    values, eigenmodes, amplitudes = modes
    weights = (eigenmodes @ (values**ahead * amplitudes)).real
    return torch.cat([weights.new_zeros(1), weights]) if bool(weights.isfinite().all()) else reuse


def combine(snapshots: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of snapshots (b, ...) weighted per image. weights: one (n,) per image."""
    shares = torch.stack([*weights]).to(snapshots[0].device, torch.float32)  # (b, n)
    parts = [w.view(-1, *[1] * (y.ndim - 1)) * y.float() for w, y in zip(shares.T, snapshots, strict=True)]
    return torch.stack(parts).sum(0).to(snapshots[0].dtype)

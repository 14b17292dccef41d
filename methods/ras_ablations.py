"""Variants of RAS: controls of its ranking, ablations, forecasts, and the rule of the released code.

selection=random: the control that RAS has to beat.
selection=oracle: activates the tokens whose cached velocity is most wrong, as a dense evaluation at every
    step shows. It costs more than the dense run and is no method; it bounds what a better ranking could gain.
Other rankings: see `methods.selection`. Their score is multiplied by the token's age to the power `ageing`.
    They use neither `high_ratio` nor `starvation`.
kv=false: active tokens attend only to one another, as in the paper's table 4b.
stale=taylor: the velocity of an inactive token is extrapolated from its last two evaluations.
cache: steps without any evaluation, at which every token's velocity is forecast.

as_released: the rule of microsoft/RAS at a9c5ec8, where that is well defined. There an inactive token at the
    top of the ranking climbs further each time, which keeps it inactive. Counts are truncated, so that one
    more token may be active, and are multiples of 64 if the ratio falls. The released code never reads its
    `starvation_scale`: it is always 0.1.
"""

from torch import Tensor

from fovea.methods import selection
from fovea.methods.forecast import TokenForecast
from fovea.methods.selection import TokenHistory, distance
from fovea.methods.tokens import uniform
from fovea.models.tokens import gather_tokens

RANKED = ("std", "l2norm")  # the paper's own rankings


def check(ras) -> None:
    """Raise ValueError for settings that the released code does not have."""
    if ras.starvation != 0.1:
        raise ValueError(f"starvation={ras.starvation}: the released rule supports only 0.1")
    if ras.selection not in RANKED:
        raise ValueError(f"selection={ras.selection}: the released rule supports only std and l2norm")


def inactive_by_rank(ras, n: int, steps: int) -> list[tuple[int, int]]:
    """Return how many of n tokens each step leaves inactive at the bottom and at the top of the ranking."""
    if ras.as_released:
        return released(ras, n, steps)
    high = 0.0 if ras.selection not in RANKED else ras.high_ratio
    return [(m - round(high * m), round(high * m)) for m in ras.inactive_counts(n, steps)]


def released(ras, n: int, steps: int) -> list[tuple[int, int]]:
    """As `inactive_by_rank`, by the rule of the released code.

    ValueError if a sparse step has no inactive tokens at the top: the released code would then slice with
        [-0:], which selects every token.
    """
    sparse = ras.sparse_steps(steps)
    average, fall = int((1 - ras.ratio) * n), round(ras.fall * n)
    middle = (steps + ras.start) // ras.every // 2
    counts = [(0, 0)] * steps
    for i in sparse:
        m = (average + fall * (i // ras.every - middle)) // 64 * 64 if fall else average
        counts[i] = int(m * (1 - ras.high_ratio)), int(m * ras.high_ratio)
        if counts[i][1] <= 0:
            raise ValueError(
                f"high_ratio={ras.high_ratio}, ratio={ras.ratio}: the released rule must leave tokens out at "
                "the top of the ranking; raise high_ratio, lower ratio or set as_released=false"
            )
    return counts


def starvation(ras) -> tuple[float, int]:
    """Return k of eq. 1, and the sign with which it moves the score of inactive tokens at the top."""
    return 0.0 if ras.selection not in RANKED else ras.starvation, 1 if ras.as_released else -1


def score(ras, flow, state: "TokenState", step: int, x: Tensor, sigma: Tensor, v: Tensor) -> Tensor:
    """Return the score (b, n) by which tokens are ranked. v: velocity (b, n, c) of the previous step."""
    if ras.selection in RANKED:
        return ras.score(v, flow)
    if ras.selection == "random":
        return uniform(flow, v)
    if ras.selection == "oracle":
        return distance(flow.velocity(x, sigma), state.stale_velocity(step))
    image, p = x.float() - sigma * v, round(flow.pixels**0.5)
    return selection.score(ras.selection, ras.ageing, state.history, step, flow.grid, image, p)


class TokenState:
    """State of all tokens, each from the steps at which it was active: velocity, keys and values."""

    def __init__(self, ras, flow):
        self.ras, self.flow, self.kv = ras, flow, flow.new_kv()
        self.stale, self.skip = int(ras.stale == "taylor"), ras.cache.order if ras.cache else 0
        self.forecasts, self.history = TokenForecast(max(self.stale, self.skip)), TokenHistory()

    def runs(self, i: int) -> bool:
        """True if step i is evaluated."""
        return self.ras.cache is None or self.ras.cache.runs(i)

    def sparse_follows(self, i: int, inactive: list[tuple[int, int]]) -> bool:
        """True if the next evaluated step after i is sparse, and so needs keys and values."""
        return any(next((inactive[j] for j in range(i + 1, len(inactive)) if self.runs(j)), (0, 0)))

    def stale_velocity(self, i: int) -> Tensor:
        """Return the velocity (b, n, c) used for inactive tokens at step i."""
        return self.forecasts.predict(i, self.stale)

    def forecast(self, i: int) -> Tensor:
        """Return the velocity (b, n, c) of a step without evaluation."""
        return self.forecasts.predict(i, self.skip)

    def dense(self, i: int, x: Tensor, sigma: Tensor, before_sparse: bool) -> Tensor:
        """Evaluate all tokens and return the velocity (b, n, c)."""
        kv = self.kv if before_sparse and self.ras.kv else None
        self.record(i, self.flow.velocity(x, sigma, kv=kv))
        return self.forecasts.value

    def sparse(self, i: int, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """Evaluate the tokens `rows` (b, k) and return the velocity (b, n, c) of all."""
        if self.ras.kv:
            v = self.flow.velocity(x, sigma, kv=self.kv, rows=rows, keep_text=self.ras.text == "keep")
        else:
            v = velocity_without_others(self.flow, x, sigma, rows)
        self.record(i, v, rows)
        return self.stale_velocity(i)

    def record(self, i: int, v: Tensor, rows: Tensor | None = None) -> None:
        """Record an evaluated velocity: (b, n, c), or (b, k, c) at the given rows."""
        if self.ras.selection not in RANKED:
            old, reused = (
                (self.forecasts.value, self.stale_velocity(i)) if len(self.forecasts.value) else (v, v)
            )
            if rows is not None:
                old, reused = gather_tokens(old, rows), gather_tokens(reused, rows)
            self.history.update(i, v, old, reused, rows)
        self.forecasts.update(i, v, rows)


def velocity_without_others(flow, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
    """Return the velocity (b, k, c) of the tokens `rows` (b, k), evaluated without the others."""
    positions = flow.grid.positions(x.device).expand(len(x), -1, -1)
    return flow.velocity(
        gather_tokens(x, rows), sigma, encodings=flow.encodings(gather_tokens(positions, rows))
    )

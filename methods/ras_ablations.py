"""What stands beside RAS: controls of its ranking, ablations, forecasts, and the rule of its authors' code.

`selection=random`: the control that it must beat. `selection=oracle`: the tokens run whose kept velocity is
most wrong, which an evaluation of all tokens tells. That costs more than the dense run and is no method: it
says what a better ranking could win. Other rankings: see `methods.selection`; `ageing` is the power of a
token's age that they are multiplied by. None of these has ends or starvation.
`kv=false`: tokens that run attend to one another alone, as in the paper's table 4b.
`stale=taylor`: the velocity of a token left out goes on as it changed between its last two evaluations.
`cache`: steps that are not evaluated at all; every token's velocity is forecast.

`as_released`: microsoft/RAS, a9c5ec8, where that is sound. A token left out at the top of the ranking climbs
further each time, which keeps it out. Counts truncate, so that one token more may run, and are multiples of
64 where the ratio falls. The released code never reads its `starvation_scale`: it is 0.1.
"""

from torch import Tensor

from fovea.methods import selection
from fovea.methods.forecast import TokenForecast
from fovea.methods.selection import Missed, distance
from fovea.methods.tokens import drawn
from fovea.models.tokens import take

RANKED = ("std", "l2norm")  # by RAS itself


def check(ras) -> None:
    """ValueError for settings that the released code does not have."""
    if ras.starvation != 0.1:
        raise ValueError(f"starvation={ras.starvation}: the released rule knows only 0.1")
    if ras.selection not in RANKED:
        raise ValueError(f"selection={ras.selection}: the released rule knows std and l2norm")


def ends(ras, n: int, steps: int) -> list[tuple[int, int]]:
    """How many of n tokens each step leaves out at the bottom and at the top of the ranking."""
    if ras.as_released:
        return released(ras, n, steps)
    high = 0.0 if ras.selection not in RANKED else ras.high_ratio
    return [(m - round(high * m), round(high * m)) for m in ras.left_out(n, steps)]


def released(ras, n: int, steps: int) -> list[tuple[int, int]]:
    """ValueError where a sparse step would leave none out at the top: the released code then slices with
    [-0:], which is every token."""
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
    """k of eq. 1, and which way it moves the score of a token left out at the top of the ranking."""
    return 0.0 if ras.selection not in RANKED else ras.starvation, 1 if ras.as_released else -1


def score(ras, flow, kept: "Kept", step: int, x: Tensor, sigma: Tensor, v: Tensor) -> Tensor:
    """What tokens are ranked by, (b, n). v: velocity of the step before (b, n, c)."""
    if ras.selection in RANKED:
        return ras.score(v, flow)
    if ras.selection == "random":
        return drawn(flow, v)
    if ras.selection == "oracle":
        return distance(flow.velocity(x, sigma), kept.left(step))
    image, p = x.float() - sigma * v, round(flow.pixels**0.5)
    return selection.score(ras.selection, ras.ageing, kept.missed, step, flow.grid, image, p)


class Kept:
    """What is known of all tokens, each from the steps at which it ran: velocity, keys and values."""

    def __init__(self, ras, flow):
        self.ras, self.flow, self.kv = ras, flow, flow.new_kv()
        self.stale, self.skip = int(ras.stale == "taylor"), ras.cache.order if ras.cache else 0
        self.memory, self.missed = TokenForecast(max(self.stale, self.skip)), Missed()

    def runs(self, i: int) -> bool:
        """Whether step i is evaluated."""
        return self.ras.cache is None or self.ras.cache.runs(i)

    def sparse_follows(self, i: int, ends: list[tuple[int, int]]) -> bool:
        """Whether the next step after i that is evaluated is sparse, and so needs keys and values."""
        return any(next((ends[j] for j in range(i + 1, len(ends)) if self.runs(j)), (0, 0)))

    def left(self, i: int) -> Tensor:
        """Velocity (b, n, c) that step i takes for tokens left out."""
        return self.memory.at(i, self.stale)

    def forecast(self, i: int) -> Tensor:
        """Velocity (b, n, c) of a step that is not evaluated."""
        return self.memory.at(i, self.skip)

    def dense(self, i: int, x: Tensor, sigma: Tensor, before_sparse: bool) -> Tensor:
        """Velocity (b, n, c), all of it evaluated."""
        kv = self.kv if before_sparse and self.ras.kv else None
        self.learn(i, self.flow.velocity(x, sigma, kv=kv))
        return self.memory.value

    def sparse(self, i: int, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """Velocity (b, n, c), evaluated at the rows (b, k)."""
        if self.ras.kv:
            v = self.flow.velocity(x, sigma, kv=self.kv, rows=rows)
        else:
            v = alone(self.flow, x, sigma, rows)
        self.learn(i, v, rows)
        return self.left(i)

    def learn(self, i: int, v: Tensor, rows: Tensor | None = None) -> None:
        """What ran, (b, n, c) or (b, k, c) at the rows."""
        if self.ras.selection not in RANKED:
            old, left = (self.memory.value, self.left(i)) if len(self.memory.value) else (v, v)
            if rows is not None:
                old, left = take(old, rows), take(left, rows)
            self.missed.update(i, v, old, left, rows)
        self.memory.update(i, v, rows)


def alone(flow, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
    """Velocity (b, k, c) of the tokens `rows` (b, k), as if there were no others."""
    at = flow.grid.positions(x.device).expand(len(x), -1, -1)
    return flow.velocity(take(x, rows), sigma, encodings=flow.encodings(take(at, rows)))

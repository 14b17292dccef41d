"""The forecast family: site, basis and schedule can be chosen independently (docs/methods.md)."""

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from fovea.methods import bases
from fovea.methods.bands import Bands, LowPass
from fovea.methods.cache import Cache, Velocity
from fovea.methods.forecast import Differences
from fovea.methods.schedules import FITTED, Phase, ascending, growing, refreshes, stretched
from fovea.models.hidden import Hidden
from fovea.models.tokens import Encodings

Name = Literal[
    "reuse",
    "taylor",
    "taylor_scaled",
    "hermite",
    "freqca",
    "chebyshev",
    "dmd",
    "fitted",
    "meancache",
    "foca_cachedit",
]
ORDERS = {"reuse": 0, "taylor": 1, "taylor_scaled": 2, "hermite": 2, "freqca": 2, "chebyshev": 4}
DAMPING = {"taylor_scaled": 0.5, "hermite": 0.5, "freqca": 0.71, "chebyshev": 0.1}
Row = tuple[float, ...]


@dataclass(frozen=True, config={"extra": "forbid"})
class Forecast(Cache):
    """At some steps the model runs; at the others its output is forecast from earlier outputs.

    basis: how to extrapolate; see `methods.bases`, and `methods.bands` for freqca.
    schedule: which steps run. "even": every `interval` steps after `warmup`, by `phase`. "growing": the
        interval grows by `growth` each time (Spectrum). "fitted": L2P's lists for an `interval` of 5, 6, 7,
        8, 10 or 16. "dp": the steps `full` of a run of `of` steps, found by dynamic programming (`python -m
        scripts.calibrate`).
    at: site of the forecast: the "velocity"; the last "hidden" state before the readout, which runs at every
        step; the outputs of all attention and MLP "modules"; or those of the "attention" modules alone.
    order: order of the series; None for 1 with taylor, 2 with taylor_scaled, hermite and freqca (of its high
        band), 4 with chebyshev.
    damping: factor of taylor_scaled and hermite, 0.5 if None, and of freqca, 0.71 if None; ridge of
        chebyshev, 0.1 if None.
    cutoff: share of the frequencies that freqca reuses.
    window: number of steps over which meancache averages.
    table: weights for basis=fitted, one row per step.
    """

    basis: Name = "taylor"
    schedule: Literal["even", "growing", "fitted", "dp"] = "even"
    at: Literal["velocity", "hidden", "modules", "attention"] = "velocity"
    order: Annotated[int, Field(ge=0, le=8)] | None = None
    damping: Annotated[float, Field(gt=0)] | None = None
    cutoff: Annotated[float, Field(ge=0, le=1)] = 0.1
    window: Annotated[int, Field(ge=1)] = 3
    table: tuple[Row, ...] | None = None
    interval: Annotated[int, Field(ge=1)] = 3
    warmup: Annotated[int, Field(ge=1)] = 3
    phase: Phase = "paper"
    growth: Annotated[float, Field(ge=0)] = 0.75
    full: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(ascending)] | None = None
    of: Annotated[int, Field(ge=1)] | None = None

    off: ClassVar = {"schedule": "even", "interval": 1}

    def __post_init__(self):
        if self.basis == "fitted" and not self.table:
            raise ValueError(
                "table=null: the weights are fitted to a model, and there are none for this one; `python -m "
                "scripts.calibrate model=NAME` fits them and prints what to put into its file"
            )
        if self.basis == "freqca" and self.at not in ("velocity", "hidden"):
            raise ValueError(
                f"basis=freqca, at={self.at}: its bands are those of image tokens; choose at=hidden, as "
                "its authors do, or at=velocity"
            )
        if self.schedule == "fitted" and self.interval not in FITTED:
            raise ValueError(f"interval={self.interval}: fitted lists are for {', '.join(map(str, FITTED))}")
        if self.schedule == "dp" and not (
            self.full and self.of and 0 in self.full and max(self.full) < self.of
        ):
            raise ValueError(
                f"full={self.full}, of={self.of}: schedule=dp needs the steps that run, 0 among them, and of "
                "how many; `python -m scripts.calibrate model=NAME` finds them for its file"
            )

    @property
    def needs_full_schedule(self) -> bool:
        """True for bases and schedules that are only valid from noise to image."""
        return self.basis in ("fitted", "meancache") or self.schedule in ("fitted", "dp")

    @property
    def needs_grid(self) -> bool:
        """True for the bands of freqca."""
        return self.basis == "freqca"

    @property
    def required_steps(self) -> int | None:
        """The number of rows in the table."""
        return len(self.table or ()) if self.basis == "fitted" else None

    def plan(self, steps: int) -> frozenset[int]:
        """Return the steps that run."""
        if self.schedule == "growing":
            return frozenset(growing(steps, self.warmup, self.growth))
        if self.schedule == "fitted":
            return frozenset(stretched(FITTED[self.interval], 50, steps))
        if self.schedule == "dp":
            return frozenset(stretched(self.full or (), self.of or steps, steps))
        return frozenset(i for i in range(steps) if refreshes(i, self.interval, self.warmup, self.phase))

    def site(self, flow, steps: int) -> "Empty":
        """Return a constructor of empty forecasts, one per site."""
        if self.basis != "freqca":
            series = self.series(flow, steps)
            return lambda encodings=None: series()

        def bands(encodings: Encodings | None = None) -> Bands:
            low_pass = LowPass((encodings or flow.encodings()).grid, self.cutoff, flow.device)
            return Bands(low_pass, Differences(0), self.series(flow, steps)())

        return bands

    def series(self, flow, steps: int) -> Callable[[], bases.Basis]:
        """Return a constructor of forecasts of whole tensors; for freqca, of the high band."""
        since = self.warmup - 1 if self.phase == "paper" else 0
        order = ORDERS.get(self.basis, 1) if self.order is None else self.order
        damping = DAMPING.get(self.basis, 1.0) if self.damping is None else self.damping
        if self.basis == "taylor_scaled":
            return lambda: Differences(order, since, bases.damped_taylor(damping))
        if self.basis in ("hermite", "freqca"):
            return lambda: Differences(order, since, bases.hermite(damping))
        if self.basis == "chebyshev":
            weights = bases.spectral(steps, order, damping, shrink_mean=self.at != "velocity")
            return lambda: bases.Weighted(weights, include_forecasts=False)
        if self.basis == "fitted":
            weights = bases.fitted_weights(self.table or ())
            return lambda: bases.Weighted(weights, include_forecasts=True)
        if self.basis == "meancache":
            weights = bases.mean_velocity(flow.sigmas(steps).tolist(), self.window)
            return lambda: bases.Weighted(weights, include_forecasts=True, history=self.window)
        if self.basis == "dmd":
            return lambda: bases.DynamicModes(since)
        if self.basis == "foca_cachedit":
            return bases.Foca
        return lambda: Differences(0 if self.basis == "reuse" else order, since)

    def saves(self, steps):
        return not self.plan(steps).issuperset(range(steps))

    def start(self, flow, steps):
        plan, empty = self.plan(steps), self.site(flow, steps)
        if self.at == "velocity":
            return forecast_velocity(flow, plan.__contains__, empty)
        if self.at == "hidden":
            return forecast_hidden(flow, plan.__contains__, empty)
        return forecast_modules(
            flow, plan.__contains__, empty, "attention" if self.at == "attention" else "all"
        )


Runs = Callable[[int], bool]
Empty = Callable[..., bases.Basis]  # of the encodings of its tokens; the flow's own if left out


def forecast_velocity(flow, runs: Runs, empty: Empty) -> Velocity:
    """Forecast the guided velocity; skipped steps evaluate nothing."""
    site = None

    def velocity(step, x, sigma, encodings=None):
        nonlocal site
        site = site or empty(encodings)
        if not runs(step):
            return site.predict(step)[0]
        v = flow.velocity(x, sigma, encodings=encodings)
        site.update(step, (v,))
        return v

    return velocity


def forecast_hidden(flow, runs: Runs, empty: Empty) -> Velocity:
    """Forecast the image tokens after the last block; the readout uses the current noise level."""
    site = text = None

    def velocity(step, x, sigma, encodings=None):
        nonlocal site, text
        site = site or empty(encodings)
        e = flow.prepare(x, sigma, encodings)
        if runs(step):
            h = e.run(e.hidden)
            site.update(step, (h.image,))
            text = h.text
        else:
            h = Hidden(site.predict(step)[0], text)
        return e.velocity(h)

    return velocity


def forecast_modules(flow, runs: Runs, empty: Empty, modules: Literal["all", "attention"]) -> Velocity:
    """Forecast the output of each attention and MLP module."""
    sites = defaultdict(empty)

    def velocity(step, x, sigma, encodings=None):
        e = flow.prepare(x, sigma, encodings)
        if runs(step):
            hooks = {"record": lambda site, outputs: sites[site].update(step, outputs)}
        else:
            hooks = {"recall": lambda site: sites[site].predict(step)}
        return e.velocity(e.run(e.hidden, modules=modules, **hooks))

    return velocity

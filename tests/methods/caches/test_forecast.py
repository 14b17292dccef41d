"""The forecast family: presets bit for bit, its places, its schedules, what it refuses."""

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import RALU, Caching
from fovea.methods.caches import FORA, Forecast, TaylorOutput, TaylorSeer
from fovea.models import Flow
from tests.methods.caches.runs import STEPS, run

TABLE = tuple((0.0,) * max(i - 2, 0) + ((-0.5, 1.5) if i > 1 else (1.0,) * i) for i in range(STEPS))
BASES = {
    "reuse": {},
    "taylor": {},
    "taylor_scaled": {},
    "hermite": {},
    "chebyshev": {},
    "dmd": {"interval": 2},
    "fitted": {"table": TABLE},
    "meancache": {},
    "foca_cachedit": {},
}
SCHEDULES = {
    "even": ({}, {0, 1, 2, 5, 8, 11}),
    "growing": ({"growth": 1.0}, {0, 1, 2, 4, 7, 11}),
    "fitted": ({"interval": 7}, {0, 1, 2, 4, 6, 8, 10}),
    "dp": ({"full": (0, 3, 4, 9), "of": 24}, {0, 2, 4}),
}


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        (TaylorSeer(4, 2, 3, "paper"), {"order": 2, "interval": 4, "at": "modules"}),
        (TaylorSeer(3, 1, 2, modules="attention"), {"at": "attention", "warmup": 2, "phase": "diffusers"}),
        (FORA(3), {"basis": "reuse", "at": "modules", "warmup": 1}),
        (TaylorOutput(4, 1, 2), {"interval": 4, "warmup": 2, "phase": "diffusers"}),
    ],
)
def test_older_caches_are_of_the_family_bit_for_bit(family, pipe, preset, settings):
    assert torch.equal(run(family, preset, pipe=pipe).x, run(family, Forecast(**settings), pipe=pipe).x)


@pytest.mark.parametrize("at", ["velocity", "hidden", "modules"])
@pytest.mark.parametrize("basis", BASES)
def test_every_basis_forecasts_at_every_place(family, pipe, basis, at):
    cache = Forecast(basis, at=at, **BASES[basis])
    found = run(family, cache, pipe=pipe)
    assert found.skipped() == sorted(set(range(STEPS)) - cache.plan(STEPS))
    assert found.x.isfinite().all()
    reuse = run(family, Forecast("reuse", at=at, interval=cache.interval), pipe=pipe)
    assert (basis == "reuse") == torch.equal(found.x, reuse.x)
    assert found.flow.flops() == reuse.flow.flops()
    if at == "velocity":
        assert len(found.flow.block_runs) == len(cache.plan(STEPS))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    settings, expected = SCHEDULES[name]
    cache = Forecast("reuse", name, **settings)
    assert cache.plan(STEPS) == expected
    found = run("flux", cache)
    assert found.skipped() == sorted(set(range(STEPS)) - expected)


def test_at_the_last_hidden_state_the_readout_sees_the_step():
    """Reused there, the velocity still changes with the noise level; reused at the output, it does not."""
    steps = []
    run("flux", Forecast("reuse", at="hidden"), on_step=lambda **step: steps.append(step["v"]))
    assert not torch.equal(steps[3], steps[2])
    steps.clear()
    run("flux", Forecast("reuse", at="velocity"), on_step=lambda **step: steps.append(step["v"]))
    assert torch.equal(steps[3], steps[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": "fitted"}, r"scripts\.calibrate"),
        ({"schedule": "dp"}, r"scripts\.calibrate"),
        ({"schedule": "dp", "full": (1, 2), "of": 4}, "0 among them"),
        ({"schedule": "fitted", "interval": 3}, "5, 6, 7, 8, 10, 16"),
        ({"basis": "foca"}, "foca_cachedit"),
        ({"at": "nowhere"}, "velocity"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Forecast(**settings)


def test_weights_of_other_steps_and_other_noise_levels_are_refused():
    with pytest.raises(ValidationError, match="fitted to 12"):
        Caching(Forecast("fitted", table=TABLE), steps=10)
    with pytest.raises(ValidationError, match="stage's"):
        RALU(cache=Forecast("meancache"))
    RALU(cache=Forecast("hermite"))


def test_weights_are_found_once_for_all_sites(monkeypatch):
    """Not for each of them: noise levels are read from the device."""
    asked, sigmas = [], Flow.sigmas
    monkeypatch.setattr(Flow, "sigmas", lambda flow, *given: asked.append(given) or sigmas(flow, *given))
    run("flux", Forecast("meancache", at="modules"))
    assert len(asked) == 2  # by the sampler, and by the basis

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchHeunDiscreteScheduler
from pydantic import ValidationError

from fovea.methods import Baseline, Steps
from tests.methods.gaussian import GaussianFlow


def error(solver, steps):
    return (Steps(steps=steps, solver=solver)(GaussianFlow()) - GaussianFlow().solution()).norm().item()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    assert error(solver, 80) / error(solver, 160) == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("solver", ["heun", "dpm++2m", "unipc"])
def test_second_order_beats_euler(solver):
    assert error(solver, 20) < 0.5 * error("euler", 20)


def test_euler_is_the_baseline_bit_for_bit():
    assert torch.equal(Steps(steps=12)(GaussianFlow()), Baseline(steps=12)(GaussianFlow()))


def test_dpmpp_2m_equals_diffusers():
    flow, steps = GaussianFlow(), 12
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = flow.sigmas(steps)
    scheduler.timesteps = scheduler.sigmas[:-1] * 1000
    x = flow.noise()
    for s, t in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        x = scheduler.step(flow.velocity(x, s), t, x).prev_sample
    torch.testing.assert_close(Steps(steps=steps, solver="dpm++2m")(GaussianFlow()), x, rtol=0, atol=2e-6)


def test_heun_equals_diffusers():
    flow, steps = GaussianFlow(), 6
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    levels = torch.cat([scheduler.sigmas[::2], scheduler.sigmas[-1:]])  # interior ones stand twice
    x = flow.noise()
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(flow.velocity(x, scheduler.sigmas[i]), t, x).prev_sample
    again = GaussianFlow()
    again.sigmas = lambda _: levels
    torch.testing.assert_close(Steps(steps=steps, solver="heun")(again), x, rtol=0, atol=5e-5)


def test_evaluations_per_step():
    for solver, expected in [("euler", 10), ("heun", 19), ("dpm++2m", 10), ("unipc", 10)]:
        flow = GaussianFlow()
        Steps(steps=10, solver=solver)(flow)
        assert len(flow.evaluated) == expected, solver


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"solver": "rk4"}, {"step": 4}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Steps(**wrong)


def test_a_held_schedule_is_that_of_the_models_steps():
    asked = []

    class Flow(GaussianFlow):
        steps = 12

        def sigmas(self, steps, schedule_steps=None):
            asked.append((steps, schedule_steps))
            return super().sigmas(steps)

    Steps(steps=6)(Flow())
    Steps(steps=6, schedule="held")(Flow())
    assert asked == [(6, None), (6, 12)]

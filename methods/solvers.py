"""Solvers of the probability flow dx/dsigma = velocity(x, sigma), from sigma 1 (noise) to 0 (image).

Each takes the state x (b, n, c) at sigmas[0] through all of sigmas (steps + 1,) and returns it at sigmas[-1].
velocity(step, x, sigma): see `Cache.start`; sigma is sigmas[step]. on_step: see methods/__init__.py.
"""

from itertools import pairwise
from math import expm1, inf, log

from fovea.methods import tokens


def no_callback(**step):
    """An `on_step` that does nothing."""


def euler(velocity, x, sigmas, on_step):
    """Euler's method: one evaluation per step."""
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        v = velocity(i, x, s)
        x = tokens.euler_step(x, v, s_next - s)
        on_step(i=i, sigma=s, x=x, v=v, rows=None)
    return x


def heun(velocity, x, sigmas, on_step):
    """Heun's method (trapezoidal rule); the last step, to sigma = 0, is an Euler step."""
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        v = velocity(i, x, s)
        if i < len(sigmas) - 2:
            v = (v + velocity(i + 1, tokens.euler_step(x, v, s_next - s), s_next)) / 2
        x = tokens.euler_step(x, v, s_next - s)
        on_step(i=i, sigma=s, x=x, v=v, rows=None)
    return x


def log_snr(s):
    """Half the log signal-to-noise ratio of (1 - s) * image + s * noise."""
    return log((1 - s) / s) if 0 < s < 1 else inf if s == 0 else -inf


def dpmpp_2m(velocity, x, sigmas, on_step):
    """DPM-Solver++(2M) (arXiv:2211.01095), algorithm 2, with alpha = 1 - sigma; first order at both ends."""
    image_last, h_last = x, 1.0  # from the previous step
    for i, (s, s_next) in enumerate(pairwise(sigmas.tolist())):
        v = velocity(i, x, sigmas[i])
        image = x.float() - s * v
        h = log_snr(s_next) - log_snr(s)
        ahead = image
        if i > 0 and s_next > 0:
            ahead = image + h / (2 * h_last) * (image - image_last)
        x = (s_next / s * x.float() - (1 - s_next) * expm1(-h) * ahead).to(v.dtype)
        image_last, h_last = image, h
        on_step(i=i, sigma=sigmas[i], x=x, v=v, rows=None)
    return x


def unipc(velocity, x, sigmas, on_step):
    """Second-order UniPC (arXiv:2302.04867), as implemented in diffusers."""
    # slow to import
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(sigmas=sigmas[:-1].cpu().numpy(), device=x.device)
    for i, t in enumerate(scheduler.timesteps):
        v = velocity(i, x, sigmas[i])
        x = scheduler.step(v.float(), t, x.float(), return_dict=False)[0].to(v.dtype)
        on_step(i=i, sigma=sigmas[i], x=x, v=v, rows=None)
    return x


SOLVERS = {"euler": euler, "heun": heun, "dpm++2m": dpmpp_2m, "unipc": unipc}

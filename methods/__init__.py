"""Acceleration methods, one per file, each written to read like the algorithm in its paper.

A method is a frozen dataclass: its fields are its settings, and calling it samples a batch of images:

    x = method(flow, on_step=None)      # (b, n, c): tokens of b finished images

It sees only a flow (`models.Flow`: noise, sigmas, velocity, decode). Text, guidance, dtype and latent layout
are handled by the adapter. All state lives in local variables and in the keys and values from
`flow.new_kv()`, so nothing outlives a trajectory. After each step the method calls `on_step` with

i: index of the step.
sigma: noise level at the start of the step.
x: new state (b, n, c).
v: velocity (b, n, c).
rows: tokens that were evaluated, (b, k); None for all.

Methods that run in stages pass more (`methods.stage_callback`).

A method that does not take the model's number of steps exposes its own as `own_steps`, or as `steps` if that
is not None.

A method that does not run on every grid or in every number of steps has `check(grid, steps)`, which raises
ValueError before any work.

Settings are validated on construction; the `ValueError` names the setting, its value and the remedy. The
class variable `off` holds settings that disable the method: the output then equals the baseline bit for bit.
`another_image` is true for methods that start from different noise or add noise on the way: they produce a
different image than the dense run, so similarity to the dense image does not measure their quality.
`needs_guidance` is true for methods that save nothing but work of classifier-free guidance.
"""

from typing import TYPE_CHECKING

from fovea import lazy

if TYPE_CHECKING:
    from fovea.methods.baseline import Baseline
    from fovea.methods.cache import Cache
    from fovea.methods.caching import Caching
    from fovea.methods.guidance import LimitedGuidance
    from fovea.methods.jit import JiT
    from fovea.methods.lift import Lift
    from fovea.methods.multistep import Multistep
    from fovea.methods.ralu import RALU
    from fovea.methods.random import Random
    from fovea.methods.ras import RAS
    from fovea.methods.steps import Steps

__all__ = [
    "RALU",
    "RAS",
    "Baseline",
    "Cache",
    "Caching",
    "JiT",
    "Lift",
    "LimitedGuidance",
    "Multistep",
    "Random",
    "Steps",
]

__getattr__ = lazy.names(
    __name__,
    {
        "Baseline": "baseline",
        "Cache": "cache",
        "Caching": "caching",
        "Multistep": "multistep",
        "JiT": "jit",
        "LimitedGuidance": "guidance",
        "Lift": "lift",
        "RALU": "ralu",
        "Random": "random",
        "RAS": "ras",
        "Steps": "steps",
    },
)

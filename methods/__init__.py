"""Acceleration methods, one file each, written like the algorithm in its paper.

A method is a frozen dataclass whose fields are its settings and whose call is its sampler:

    x = method(flow, on_step=None)      # (b, n, c): the tokens of b finished images

It sees a flow (`models.Flow`: noise, sigmas, velocity, decode) and nothing of the model behind it: text,
guidance, number format and layout are the adapter's business. All its memory is local variables and the keys
and values it asks for with `flow.new_kv()`, so nothing outlives the trajectory. After each step it reports to
`on_step(i=, sigma=, x=, v=, rows=)`: the step's number, the noise level it started from, the new state and
the velocity (b, n, c), and the rows that were evaluated, (b, k), None for all. A method in stages tells more
(`methods.notes`).

A method that takes steps of its own, never the model's, tells how many: `steps` where it is not None, or
`own_steps`.

Settings are checked when the object is made; `ValueError` names the setting, its value and the remedy. Those
in `off`, a class variable, leave nothing of the method: the baseline bit for bit. Where `another_image` is
there and true, a method makes other images than the dense ones, since it begins with other noise or adds some
on the way: no likeness to these judges it.
"""

from typing import TYPE_CHECKING

from fovea import lazy

if TYPE_CHECKING:
    from fovea.methods.baseline import Baseline
    from fovea.methods.cache import Cache
    from fovea.methods.caching import Caching
    from fovea.methods.drift import Drift
    from fovea.methods.jit import JiT
    from fovea.methods.lift import Lift
    from fovea.methods.ralu import RALU
    from fovea.methods.random import Random
    from fovea.methods.ras import RAS
    from fovea.methods.steps import Steps

__all__ = ["RALU", "RAS", "Baseline", "Cache", "Caching", "Drift", "JiT", "Lift", "Random", "Steps"]

__getattr__ = lazy.names(
    __name__,
    {
        "Baseline": "baseline",
        "Cache": "cache",
        "Caching": "caching",
        "Drift": "drift",
        "JiT": "jit",
        "Lift": "lift",
        "RALU": "ralu",
        "Random": "random",
        "RAS": "ras",
        "Steps": "steps",
    },
)

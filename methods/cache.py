"""Caches: they stand between a sampler and the model and replace some evaluations by earlier results."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

Velocity = Callable[..., Any]


class Cache(ABC):
    """Settings of a cache. Each subclass is a frozen dataclass in its own file in methods/caches.

    off: settings that disable the cache, so that the run equals the baseline bit for bit.
    """

    off: ClassVar[dict[str, Any]]

    @property
    def needs_grid(self) -> bool:
        """True if tokens must be the cells of a grid, which they are not in RALU's middle stage."""
        return False

    @property
    def needs_full_schedule(self) -> bool:
        """True if the cache needs the model's own noise levels from noise to image, unlike RALU's stages."""
        return False

    @property
    def required_steps(self) -> int | None:
        """The only number of steps the cache supports; None for any."""
        return None

    def saves(self, steps: int) -> bool:
        """False if the cache would evaluate all of `steps` steps, whatever the model."""
        return True

    @abstractmethod
    def start(self, flow, steps: int) -> Velocity:
        """Return `velocity(step, x, sigma, encodings=None)` for one trajectory on one set of tokens.

        `step` is the index of the noise level sigma, from 0 to `steps` - 1; a step may be evaluated more than
        once (Heun). The returned callable holds all of the cache's state.
        """


def uncached(flow) -> Velocity:
    """Return `flow.velocity` with the signature of a cache."""

    def velocity(step, x, sigma, encodings=None):
        return flow.velocity(x, sigma, encodings=encodings)

    return velocity

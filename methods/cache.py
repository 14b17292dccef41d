"""A cache: what stands between a sampler and the model and answers some of its calls from earlier ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

Velocity = Callable[..., Any]


class Cache(ABC):
    """Settings of one cache, in a frozen dataclass of its own file in methods/caches.

    off: settings under which it never answers, so that the run is the baseline bit for bit.
    needs_grid: whether tokens must be the cells of a grid, which in RALU's middle stage they are not.
    """

    off: ClassVar[dict[str, Any]]
    needs_grid: ClassVar[bool] = False

    @property
    def whole_run(self) -> bool:
        """Whether it is for the model's own noise levels from noise to image, which RALU's stages lack."""
        return False

    @property
    def only_steps(self) -> int | None:
        """The number of steps that it is fitted to; None for any."""
        return None

    def saves(self, steps: int) -> bool:
        """Whether any of so many steps may be answered; False where all run, whatever the model."""
        return True

    @abstractmethod
    def start(self, flow, steps: int) -> Velocity:
        """`velocity(step, x, sigma, encodings=None)` for one trajectory of `steps` steps on one set of
        tokens.
        step: which noise level sigma is, from 0; one may be evaluated more than once, as Heun's method does.
        All it remembers is dropped with it."""


def uncached(flow) -> Velocity:
    """The same of the flow itself, where no cache stands before it."""

    def velocity(step, x, sigma, encodings=None):
        return flow.velocity(x, sigma, encodings=encodings)

    return velocity

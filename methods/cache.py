"""A cache: what stands between a sampler and the model and answers some of its calls from earlier ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

Velocity = Callable[..., Any]


class Cache(ABC):
    """Settings of one cache, in a frozen dataclass of its own file in methods/caches.

    off: settings under which it never answers, so that the run is the baseline bit for bit.
    """

    off: ClassVar[dict[str, Any]]

    @abstractmethod
    def start(self, flow, steps: int) -> Velocity:
        """`velocity(x, sigma, places=None)` for the next `steps` evaluations of one trajectory on one set of
        tokens. All it remembers is dropped with it."""

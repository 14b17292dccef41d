"""What the distances of a set of images to a reference set share: they differ in the features, and in what
each image adds."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from fovea.eval import Samples, Score, quality
from fovea.eval.extractor import Extractor
from fovea.eval.facts import Facts
from fovea.eval.features import Known
from fovea.eval.frechet import contributions, gaussian
from fovea.eval.inception import Inception
from fovea.eval.reference import Reference, distance_score


class Distance:
    """A Fréchet distance, unless a class has an `adds` of its own.

    features: which of the extractor's.
    """

    features: ClassVar[str]
    facts: ClassVar[Facts]
    name: Any
    reference: Any

    @property
    def scores(self) -> dict[str, Facts]:
        return {self.name: self.facts}

    def check(self) -> None:
        self.source()
        self.reference.check(self.source)

    def source(self) -> Extractor:
        """The network. Raises Unavailable without its weights."""
        raise TypeError(f"{type(self).__name__} has no network")

    def require(self, n: int) -> None:
        """Raises Unavailable if n images are too few."""

    def adds(self, known: Known, n: int) -> Callable[[Tensor], NDArray]:
        """What each of n images adds to the distance, of their features (n, d)."""
        return partial(contributions, reference=gaussian(known, self.features))

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        return [self.score(samples)]

    def score(self, samples: Samples) -> Score:
        """Raises Unavailable."""
        self.require(samples.n)
        extractor = self.source()
        adds = self.adds(self.reference.known(extractor, samples.images), samples.n)
        mine = extractor.images(samples.images)[self.features]
        dense = None if samples.dense is None else extractor.images(samples.dense)[self.features]
        score = distance_score(self.name, self.facts, adds, mine, dense, samples.prompts)
        return replace(score, note=self.reference.note)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class InceptionDistance(Distance):
    """In features of the Inception-v3."""

    inception: Inception = Inception()
    reference: Reference = Reference()

    features: ClassVar[str] = "pool"

    def source(self) -> Extractor:
        return self.inception.load()

"""What the distances of a set of images to a reference set share: they differ in the features, and in what
each image adds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fovea.eval import Samples, Score, quality
from fovea.eval.encoder import Encoder
from fovea.eval.facts import Facts
from fovea.eval.features import Features, Known
from fovea.eval.inception import Inception
from fovea.eval.reference import Reference, distance_score
from fovea.eval.samples import PerImage


class Distance:
    """To a reference set, in the features `features` of a network."""

    features: ClassVar[str]
    facts: ClassVar[Facts]
    name: Any
    reference: Any

    @property
    def scores(self) -> dict[str, Facts]:
        return {self.name: self.facts}

    def check(self) -> None:
        self.source()
        self.against().check(self.source)

    def source(self) -> Encoder:
        """The network. Raises Unavailable without its weights."""
        raise TypeError(f"{type(self).__name__} has no network")

    def needs(self) -> Sequence[PerImage]:
        return [self.source()]

    def against(self) -> Reference:
        """The reference set."""
        return self.reference

    def require(self, n: int) -> None:
        """Raises Unavailable if n images are too few."""

    def adds(self, known: Known, n: int) -> Callable[[Features], NDArray]:
        """What each of n images adds to the distance, of their features (n, d)."""
        raise TypeError(f"{type(self).__name__} does not say what an image adds")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        return [self.score(samples)]

    def score(self, samples: Samples) -> Score:
        """Raises Unavailable."""
        self.require(samples.n)
        encoder, reference = self.source(), self.against()
        known = reference.known(encoder, samples.size)
        adds = self.adds(known, samples.n)
        mine, dense = self.features_of(samples, encoder)
        score = distance_score(self.name, self.facts, adds, mine, dense, samples.prompts)
        said = self.caution(known, score) if dense is None else ""
        return replace(score, note="; ".join(filter(None, [reference.note, said])))

    def caution(self, known: Known, score: Score) -> str:
        """What is to be said beside the figure of the dense images, if anything."""
        return ""

    def features_of(self, samples: Samples, encoder: Encoder) -> tuple[Features, Features | None]:
        """Features (n, d) of the images, and of the dense ones."""
        dense = samples.baseline and samples.baseline.rows(encoder)[self.features]
        return samples.rows(encoder)[self.features], dense


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class InceptionDistance(Distance):
    """In features of the Inception-v3."""

    inception: Inception = Inception()
    reference: Reference = Reference()

    features: ClassVar[str] = "pool"

    def source(self) -> Encoder:
        return self.inception.load()

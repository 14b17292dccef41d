"""Base classes of distances between a set of images and a reference set.

Subclasses differ in the features, and in what each image contributes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
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


class Identified:
    """Features (n, d) of images, equal to others if the images are the same. ids: of the images."""

    def __init__(self, features: Features, ids: Sequence[str]):
        self.features, self.ids = features, tuple(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identified) and self.ids == other.ids

    def __hash__(self) -> int:
        return hash(self.ids)


@lru_cache(maxsize=4)
def added(metric: "Distance", known: Known, images: Identified) -> NDArray:
    """Return each image's contribution (n,). Cached, as every cell needs that of the same dense images."""
    return metric.adds(known, len(images))(images.features)


class Distance:
    """Distance to a reference set in the features named `features` of a network."""

    features: ClassVar[str]
    facts: ClassVar[Facts]
    name: Any
    reference: Any

    @property
    def scores(self) -> dict[str, Facts]:
        return {self.name: self.facts}

    def check(self) -> None:
        self.source()
        self.against().check(self.source, self.features)

    def source(self) -> Encoder:
        """Return the network. Raises Unavailable without its weights."""
        raise TypeError(f"{type(self).__name__} has no network")

    def needs(self) -> Sequence[PerImage]:
        return [self.source()]

    def against(self) -> Reference:
        """Return the reference set."""
        return self.reference

    def require(self, n: int) -> None:
        """Raise Unavailable if n images are too few."""

    def adds(self, known: Known, n: int) -> Callable[[Features], NDArray]:
        """Return a function from features (n, d) to each image's contribution to the distance (n,)."""
        raise TypeError(f"{type(self).__name__} does not say what an image adds")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        return [self.score(samples)]

    def score(self, samples: Samples) -> Score:
        """Return the score. Raises Unavailable."""
        self.require(samples.n)
        encoder, reference = self.source(), self.against()
        known = reference.known(encoder, samples.size)
        features, others = self.features_of(samples, encoder)
        mine, dense = Identified(features, samples.source.ids), None
        if samples.baseline is not None and others is not None:
            dense = Identified(others, samples.baseline.source.ids)
        adds = partial(added, self, known)
        score = distance_score(self.name, self.facts, adds, mine, dense, samples.prompts)
        said = self.caution(known, score) if dense is None else ""
        return replace(score, note="; ".join(filter(None, [reference.note, said])))

    def caution(self, known: Known, score: Score) -> str:
        """Return a remark on the score of images without dense ones to compare with, if any."""
        return ""

    def features_of(self, samples: Samples, encoder: Encoder) -> tuple[Features, Features | None]:
        """Return features (n, d) of the images and of the dense images."""
        dense = samples.baseline and samples.baseline.rows(encoder)[self.features]
        return samples.rows(encoder)[self.features], dense


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class InceptionDistance(Distance):
    """Distance in Inception-v3 features."""

    inception: Inception = Inception()
    reference: Reference = Reference()

    features: ClassVar[str] = "pool"

    def source(self) -> Encoder:
        return self.inception.load()

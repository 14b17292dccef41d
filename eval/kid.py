"""KID: the kernel distance in the features of the Inception-v3 (Binkowski, arXiv:1801.01401).

    mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),  k(x, y) = (x.y / d + 1)^3

of features x of the images and y of the reference: the unbiased estimate of a squared distance, which may
therefore be negative, at any n.

The standard error is the jackknife's: what each image adds is its pseudo-value, n KID - (n - 1) KID without
it. Simulated, it was right where the sets differ; where they do not, it was up to 40 % too large, as Efron
and Stein (1981) say it must be.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.eval import Samples, Score, Unavailable
from fovea.eval.distance import InceptionDistance
from fovea.eval.facts import Facts
from fovea.eval.features import ROWS, Features, Known, blocks
from fovea.eval.reference import distance_score

Array = NDArray[np.float64]


def kernel_sums(x: Features, y: Features) -> Array:
    """sum_j k(x_i, y_j), (n,), of (n, d) and (m, d)."""
    return np.concatenate(
        [sum(((a @ b.T / a.shape[1] + 1) ** 3).sum(1) for b in blocks(y, ROWS)) for a in blocks(x, ROWS)]
    )


def within(x: Features) -> Array:
    """mean_{j != i} k(x_i, x_j), (n,), of (n, d)."""
    own = np.concatenate([((a**2).sum(1) / a.shape[1] + 1) ** 3 for a in blocks(x, ROWS)])
    return (kernel_sums(x, x) - own) / (len(x) - 1)


def pseudo_values(x: Features, y: Features) -> Array:
    """What each of n > 2 images adds to the KID of their features x (n, d) from the reference's y (m, d): the
    mean is KID."""
    n, own = len(x), within(x)
    pairs = own.mean() + 2 * (n - 1) / (n - 2) * (own - own.mean())
    return pairs + within(y).mean() - 2 * kernel_sums(x, y) / len(y)


def subset_kids(x: Features, y: Features, subsets: int, size: int, seed: int) -> Array:
    """KID of `subsets` draws of `size` from each set: the draws of torch-fidelity with the same seed."""
    draw = np.random.RandomState(seed)
    pairs = (
        (x[draw.choice(len(x), size, False)], y[draw.choice(len(y), size, False)]) for _ in range(subsets)
    )
    return np.array(
        [within(a).mean() + within(b).mean() - 2 * kernel_sums(a, b).mean() / size for a, b in pairs]
    )


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class KID(InceptionDistance):
    """Over all pairs of images, named after how they are resized: `kid[clean]`; not multiplied by 1000.

    It is what the mean over random subsets, which papers print, fluctuates about. The reference set counts as
    given. per_image: what each image adds. difference: to the dense images of the same keys.
    """

    facts: ClassVar[Facts] = Facts("KID", "lower", "distance")

    @property
    def name(self) -> str:
        return f"kid[{self.inception.resize}]"

    def require(self, n: int) -> None:
        if n < 3:
            raise Unavailable(
                "KID has no standard error below three images", "make more, better some hundreds"
            )

    def adds(self, known: Known, n: int) -> Callable[[Features], Array]:
        return partial(pseudo_values, y=known.features[self.features])


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SubsetKID(InceptionDistance):
    """As papers print it, the mean over random subsets of both sets: `kid[clean,100x1000]`.

    With the defaults the number of torch-fidelity. The spread over subsets that papers print after a +- is
    not its error: the standard error here is that of `KID`, with the chance of the draw on top. per_image and
    difference as there; a method and the dense model are drawn alike.
    """

    subsets: Annotated[int, Field(ge=2)] = 100
    size: Annotated[int, Field(ge=3)] = 1000
    seed: int = 2020

    facts: ClassVar[Facts] = Facts("KID", "lower", "distance")

    @property
    def name(self) -> str:
        return f"kid[{self.inception.resize},{self.subsets}x{self.size}]"

    def score(self, samples: Samples) -> Score:
        encoder = self.source()
        known = self.reference.known(encoder, samples.size).features[self.features]
        if min(samples.n, len(known)) < self.size:
            reason = f"subsets of {self.size} of {samples.n} images and {len(known)} reference images"
            raise Unavailable(reason, "make more images, or take `kid`, which needs no subsets")
        kids: list[Array] = []

        def adds(features: Features) -> Array:
            kids.append(subset_kids(features, known, self.subsets, self.size, self.seed))
            each = pseudo_values(features, known)
            return each - each.mean() + kids[-1].mean()

        mine, dense = self.features_of(samples, encoder)
        score = distance_score(self.name, self.facts, adds, mine, dense, samples.prompts)
        drawn = kids[0].std(ddof=1) / np.sqrt(self.subsets)
        return replace(score, se=None if score.se is None else float(np.hypot(score.se, drawn)))

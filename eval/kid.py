"""KID: the kernel distance in Inception-v3 features (Binkowski, arXiv:1801.01401).

    mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),  k(x, y) = (x.y / d + 1)^3

for features x of the images and y of the reference: the unbiased estimate, at any n, of a squared distance,
so it may be negative.

The standard error is the jackknife's: each image's contribution is its pseudo-value, n KID - (n - 1) KID
without it. In simulations it was correct for sets that differ, and up to 40 % too large for sets that do not,
in line with Efron and Stein (1981).
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
    """Return sum_j k(x_i, y_j), (n,), for x (n, d) and y (m, d)."""
    return np.concatenate(
        [sum(((a @ b.T / a.shape[1] + 1) ** 3).sum(1) for b in blocks(y, ROWS)) for a in blocks(x, ROWS)]
    )


def within(x: Features) -> Array:
    """Return mean_{j != i} k(x_i, x_j), (n,), for x (n, d)."""
    own = np.concatenate([((a**2).sum(1) / a.shape[1] + 1) ** 3 for a in blocks(x, ROWS)])
    return (kernel_sums(x, x) - own) / (len(x) - 1)


def pseudo_values(x: Features, y: Features) -> Array:
    """Return each image's contribution (n,) to KID, which is their mean.

    x: features of the images, (n, d), n > 2.
    y: features of the reference, (m, d).
    """
    n, own = len(x), within(x)
    pairs = own.mean() + 2 * (n - 1) / (n - 2) * (own - own.mean())
    return pairs + within(y).mean() - 2 * kernel_sums(x, y) / len(y)


def subset_kids(x: Features, y: Features, subsets: int, size: int, seed: int) -> Array:
    """Return the KID of `subsets` draws of `size` from each set, drawn as in torch-fidelity."""
    draw = np.random.RandomState(seed)
    pairs = (
        (x[draw.choice(len(x), size, False)], y[draw.choice(len(y), size, False)]) for _ in range(subsets)
    )
    return np.array(
        [within(a).mean() + within(b).mean() - 2 * kernel_sums(a, b).mean() / size for a, b in pairs]
    )


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class KID(InceptionDistance):
    """KID over all pairs of images, named after the resize mode: `kid[clean]`; not multiplied by 1000.

    This is the expectation of the mean over random subsets that papers print. The reference set is treated as
    exact.

    per_image: contribution of each image.
    difference: to the dense images of the same keys.
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
    """KID as papers print it, the mean over random subsets of both sets: `kid[clean,100x1000]`.

    With the defaults it equals torch-fidelity's number. The spread over subsets that papers print after a +-
    is not its standard error; here that is `KID`'s, plus the randomness of the draws. per_image and
    difference are as in `KID`; method and dense model use the same draws.
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

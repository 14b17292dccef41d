"""The Fréchet distance between two sets of features, each taken as a Gaussian (Heusel, arXiv:1706.08500).

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With S1 = R R' and the other set's centred features X, the last trace is the sum of the singular values of X R
/ sqrt(n - 1). They come from the eigenvalues, in float64, of the smaller Gram matrix of X R, whether n
exceeds d or not; never from a matrix square root, which is slow and fails on the singular covariances of n <=
d.

The estimate is biased upwards by about C / n (Chong and Forsyth 2020, arXiv:1911.07023): at a few dozen
images, where most directions of the covariance are unseen, most of it is bias. Alone it says little; between
methods it compares at the same n only. So scores are marked `biased`, `eval.require_equal_n` refuses a
mixture, and the figure to read is `difference`, where the bias of the method and of the dense model, drawn on
the same resamples, nearly cancel.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval import Better, Samples, Score, Unavailable, quality
from eval.backbone import EMOJI, Backbone, Encoder
from eval.statistics import basic, resamples
from eval.weights import located

Array = NDArray[np.float64]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "fovea"
CHUNK = 4_000_000  # numbers per block of resampled features, 32 MB


class Gaussian(NamedTuple):
    mean: Array  # (d,)
    root: Array  # (d, k) with covariance = root root'


def fit(features: ArrayLike) -> Gaussian:
    """The Gaussian of features (m, d), m > 1, with the unbiased covariance."""
    x = np.asarray(features, np.float64)
    mean = x.mean(0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return Gaussian(mean, centred.T)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return Gaussian(mean, vectors * np.sqrt(values.clip(0)))


def distances(features: ArrayLike, reference: Gaussian, weights: ArrayLike | None = None) -> Array:
    """Distances (r,) of the reference to features (n, d), under each row of weights (r, n) that sums to n."""
    x = np.asarray(features, np.float64) - reference.mean
    n = len(x)
    w = np.ones((1, n)) if weights is None else np.asarray(weights, np.float64)
    mean = w @ x / n  # (r, d)
    spread = (w @ (x**2).sum(1) - n * (mean**2).sum(1)) / (n - 1)  # trace of each covariance
    y, trace = x @ reference.root, (reference.root**2).sum()  # (n, k)
    rows = max(CHUNK // y.size, 1)
    overlap = [overlaps(y, w[i : i + rows]) for i in range(0, len(w), rows)]
    return (mean**2).sum(1) + spread + trace - 2 * np.concatenate(overlap)


def overlaps(y: Array, w: Array) -> Array:
    """tr (S1 S2)^(1/2) for each row of weights: the singular values of weighted, centred y (n, k), summed."""
    n, k = y.shape
    z = np.sqrt(w / (n - 1))[:, :, None] * (y - (w @ y / n)[:, None])  # (r, n, k)
    gram = z @ z.swapaxes(1, 2) if n < k else z.swapaxes(1, 2) @ z
    values = np.linalg.eigvalsh(gram)  # ascending
    noise = (
        values[:, -1:] * np.finfo(np.float64).eps * max(n, k)
    )  # unseen directions: the root would enlarge it
    return np.sqrt(np.where(values > noise, values, 0)).sum(1)


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Between two sets of features (n, d) and (m, d)."""
    return float(distances(a, fit(b))[0])


def reference_features(encoder: Encoder, folder: Path, cache: Path | None) -> Tensor:
    """Features (m, d) of the PNG files in a folder, kept under the hash of weights, resize and images."""
    files = sorted(folder.glob("*.png"))
    if len(files) < 2:
        raise Unavailable(f"{len(files)} reference images (*.png) in {folder}", "give `reference=FOLDER`")
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    made_from = json.dumps({**encoder.identity, "images": sorted(contents)})
    if cache is None:
        return encode(encoder, files)
    kept = cache.expanduser() / f"{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.safetensors"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        half_written = kept.with_suffix(f".{os.getpid()}")
        save_file({"features": encode(encoder, files)}, half_written, {"made_from": made_from})
        half_written.replace(kept)
    return load_file(kept)["features"]


def encode(encoder: Encoder, files: list[Path]) -> Tensor:
    steps = range(0, len(files), encoder.batch)  # not all of them in memory at once
    opened = ([Image.open(file).convert("RGB") for file in files[i : i + encoder.batch]] for i in steps)
    return torch.cat([encoder.pictures(pictures) for pictures in opened])


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FrechetDistance:
    """To a folder of reference images, in the image features of a CLIP model, not normalised: `fd[emoji]`.

    The standard error is that of a bootstrap over the images; the reference set counts as given. difference:
    to the dense images of the same keys, with its basic bootstrap interval. cache: a folder for reference
    features, or null.
    """

    backbone: Backbone = EMOJI
    reference: Path = Path("assets/emoji/reference")
    replicates: Annotated[int, Field(ge=100)] = 1000
    seed: int = 0
    cache: Path | None = CACHE

    @property
    def name(self) -> str:
        return f"fd[{self.backbone.label}]"

    @property
    def better(self) -> dict[str, Better]:
        return {self.name: "lower"}

    def check(self) -> None:
        self.backbone.weights()
        if not any(located(self.reference).glob("*.png")):
            raise Unavailable(f"no reference images (*.png) in {self.reference}", "give `reference=FOLDER`")

    @quality
    def __call__(self, samples: Samples) -> list[Score]:
        if samples.n < 2:
            raise Unavailable("one image has no covariance", "make at least two images, better some hundreds")
        encoder = self.backbone.load()
        reference = fit(reference_features(encoder, located(self.reference), self.cache))
        weights = resamples(samples.n, self.replicates, self.seed)
        value, drawn = self.estimate(encoder.images(samples.images), reference, weights)
        difference = None
        if samples.dense is not None:
            dense, dense_drawn = self.estimate(encoder.images(samples.dense), reference, weights)
            difference = basic(value - dense, drawn - dense_drawn, samples.n)
        se = float(drawn.std(ddof=1))
        return [Score(self.name, "lower", value, se, samples.n, difference=difference, biased=True)]

    @staticmethod
    def estimate(features: Tensor, reference: Gaussian, weights: NDArray[np.int64]) -> tuple[float, Array]:
        x = features.double().numpy()
        return float(distances(x, reference)[0]), distances(x, reference, weights)

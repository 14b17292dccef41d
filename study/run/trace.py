"""What is stored of a trajectory, per token and step: cells/ID/traces/KEY.safetensors.

Recorded for a few images per cell, during the pass that counts FLOPs (study/run/observe.py) and outside all
timing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialised
from scipy.stats import rankdata

from fovea.study.files import write
from fovea.study.store import Store

LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Trace:
    """One image's trajectory of s steps over n = rows x columns tokens, in reading order.

    sigma (s,): the noise level at which each step started, from 1 (noise) to 0 (image).
    had (s, n): share of the transformer that each token used, 0 to 1.
    score (s, n): RAS's score of the velocity that the step used: its standard deviation over the latent
        channels, averaged over the token's pixels. Dimensionless. A token that is left out keeps its velocity
        and score.
    error (s, n): departure from the dense trajectory. x0 = x - sigma v is the image that a state points to.
        The error is the root mean square, over a token's channels, of the difference between x0 and the dense
        x0 at the same sigma, divided by the root mean square of the dense image's whole latent: 0.1 is a
        tenth of it. With Euler, x0 is constant between two steps, so the dense x0 is known at any sigma. None
        if the dense baseline could not be run.
    end (n,): the same for the finished image, at sigma 0. Equal to error[-1] if the last step starts no
        higher than the dense one's. None if error is.
    level (s, n): 1 where a place was at full resolution, 2 where one token stood for 2 x 2 places. None if
        all were at full resolution throughout.
    regions (rows / 2, columns / 2): the scores by which RALU chose the regions to refine first, highest first
        (for edges: 255 for each edge pixel). None for methods without such a choice.
    """

    grid: tuple[int, int]
    sigma: np.ndarray
    had: np.ndarray
    score: np.ndarray
    error: np.ndarray | None = None
    end: np.ndarray | None = None
    level: np.ndarray | None = None
    regions: np.ndarray | None = None

    def over_image(self, values: np.ndarray) -> np.ndarray:
        """Reshape (s, n) to (s, rows, columns)."""
        return values.reshape(len(values), *self.grid)

    def continuity(self) -> np.ndarray:
        """Return Spearman's rank correlation of each step's scores with those of the previous step, (s,). The
        first is NaN, as is any step with equal scores throughout."""
        ranks = rankdata(self.score, axis=1)
        return np.array([np.nan, *map(correlation, ranks[:-1], ranks[1:])])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; NaN if either input is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


def path(store: Store, cell: str, key: str) -> Path:
    return store.cell(cell) / "traces" / f"{key}.safetensors"


def save(store: Store, cell: str, traces: Mapping[str, Trace]) -> None:
    """Store traces by key: shares in 255ths, scores and errors in float16."""
    for key, trace in traces.items():
        kept = {
            "sigma": trace.sigma.astype(np.float32),
            "had": (trace.had * 255).round().astype(np.uint8),
            "score": _half(trace.score),
        }
        optional = {
            "error": (trace.error, _half),
            "end": (trace.end, _half),
            "level": (trace.level, np.uint8),
            "regions": (trace.regions, np.float32),
        }
        kept |= {
            name: np.asarray(kind(value)) for name, (value, kind) in optional.items() if value is not None
        }
        # a single entry: safetensors writes several in arbitrary order
        grid = {"grid": "x".join(map(str, trace.grid))}
        write(path(store, cell, key), serialised(kept, grid))


def read(store: Store, cell: str) -> dict[str, Trace]:
    """Return the traces of a cell by key, without incomplete files."""
    files = sorted((store.cell(cell) / "traces").glob("[!.]*.safetensors"))
    found = {file.stem: _read(file) for file in files}
    return {key: trace for key, trace in found.items() if trace is not None}


def _read(file: Path) -> Trace | None:
    try:
        with safe_open(file, "numpy") as stored:
            kept = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            size = stored.metadata()
        rows, columns = map(int, size["grid"].split("x"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    shares = {"had": kept.pop("had") / 255, "sigma": kept.pop("sigma")}
    rest = {name: x if name == "level" else x.astype(np.float32) for name, x in kept.items()}
    return Trace((rows, columns), **shares, **rest)


def _half(values: np.ndarray) -> np.ndarray:
    return values.clip(-LARGEST, LARGEST).astype(np.float16)

"""The traces of a study: which cells have any, which cells a figure draws, and all traces as rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf, log, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.style import COLOURS, MUTED
from fovea.study.run.trace import Trace, read
from fovea.study.store import Store

SHOWN = 8  # cells in a figure, at most
DASHES = ("-", (0, (4, 2)), (0, (1, 1)))


@dataclass(frozen=True)
class Traced:
    """A cell with its traces by key: all of the same steps."""

    cell: Cell
    traces: dict[str, Trace]

    @property
    def sigma(self) -> np.ndarray:
        return next(iter(self.traces.values())).sigma

    def continuity(self) -> np.ndarray:
        """(images, steps): see `Trace.continuity`."""
        return np.array([trace.continuity() for trace in self.traces.values()])

    def departure(self) -> np.ndarray:
        """(images, steps + 1): the error averaged over the tokens, that of the finished image last. Images
        whose dense baseline could not be run are left out."""
        both = ((t.error, t.end) for t in self.traces.values())
        found = [[*error.mean(1), end.mean()] for error, end in both if error is not None and end is not None]
        return np.array(found).reshape(len(found), len(self.sigma) + 1)


def traced(plan: Plan, store: Store) -> list[Traced]:
    """The cells that have traces, in the order of the table; their images in that of the plan."""
    keys, found = [s.key for s in plan.samples], []
    for cell in plan.cells:
        traces = read(store, cell.id)
        own = {key: traces[key] for key in keys if key in traces}
        if own:
            found.append(Traced(cell, own))
    return found


def chosen(cells: Sequence[Cell], store: Store, most: int = SHOWN) -> list[Cell]:
    """All of up to so many. Of more, each method in turn: of its series, then of their settings, those
    nearest to half the dense FLOPs. In the order of the table."""
    if len(cells) <= most:
        return list(cells)
    kinds: dict[str, dict[str, list[Cell]]] = {}
    for cell in sorted(cells, key=lambda cell: _far(cell, store)):
        kinds.setdefault(cell.method["_target_"], {}).setdefault(cell.series, []).append(cell)
    turns = [in_turn(series.values()) for series in kinds.values()]
    first = {cell.id for cell in in_turn(turns)[:most]}
    return [cell for cell in cells if cell.id in first]


def in_turn(lists: Any) -> list[Any]:
    """The first of each, the second of each, ..."""
    return [one for turn in zip_longest(*lists) for one in turn if one is not None]


def _far(cell: Cell, store: Store) -> float:
    """How far a cell's FLOPs are from half the dense ones."""
    own, dense = (_flops(store, i) for i in (cell.id, cell.dense))
    return abs(log(dense / own / 2)) if own and dense else inf


def _flops(store: Store, cell: str) -> float:
    known = store.samples(cell).flops
    return known.counted / known.images if known else 0.0


def choice(shown: Sequence[Any], of: Sequence[Any]) -> str:
    """What a figure says of the cells it draws; nothing where it draws all."""
    if len(shown) == len(of):
        return ""
    return f"\n{len(shown)} of {len(of)} cells: of each method in turn those nearest to half the dense FLOPs"


def look(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Cell id to a line's colour and dashes: each series has its own, step reduction is grey; settings of one
    series pale from its first to its last."""
    series = list(dict.fromkeys(cell.series for cell in cells if cell.role == "method"))
    found = {}
    for cell in cells:
        turn, colour = divmod(series.index(cell.series), len(COLOURS)) if cell.role == "method" else (0, -1)
        alike = [other.id for other in cells if (other.role, other.series) == (cell.role, cell.series)]
        pale = 0.55 * alike.index(cell.id) / max(len(alike) - 1, 1)
        red, green, blue = (
            1 - (1 - part) * (1 - pale) for part in to_rgb(MUTED if colour < 0 else COLOURS[colour])
        )
        found[cell.id] = {"color": (red, green, blue), "linestyle": DASHES[turn % 3], "linewidth": 1.1}
    return found


def records(cells: Sequence[Traced], random_weights: bool) -> list[dict[str, Any]]:
    """One row per cell, image and step; the finished image closes each, at sigma 0.

    error_mean, error_p95: over the tokens, see `Trace.error`. tokens: share of the model that they had.
    rank_correlation: of the scores with those of the step before.
    """
    found = []
    for one in cells:
        for key, trace in one.traces.items():
            name = {"cell": one.cell.id, "label": one.cell.label, "role": one.cell.role, "key": key}
            found += [name | row | {"random_weights": random_weights} for row in _steps(trace)]
    return found


def _steps(trace: Trace) -> Iterator[dict[str, Any]]:
    tokens, ranks = trace.had.mean(1).tolist(), trace.continuity().tolist()
    for i, sigma in enumerate(trace.sigma.tolist()):
        error = _error(None if trace.error is None else trace.error[i])
        yield {"step": i, "sigma": sigma, **error, "tokens": tokens[i], "rank_correlation": ranks[i]}
    yield {"step": len(tokens), "sigma": 0.0, **_error(trace.end), "tokens": nan, "rank_correlation": nan}


def _error(of_tokens: np.ndarray | None) -> dict[str, float]:
    if of_tokens is None:
        return {"error_mean": nan, "error_p95": nan}
    return {"error_mean": float(of_tokens.mean()), "error_p95": float(np.quantile(of_tokens, 0.95))}


def table(cells: Sequence[Traced], random_weights: bool) -> bytes:
    """traces.parquet."""
    return pd.DataFrame(records(cells, random_weights)).to_parquet(index=False)

"""Traced trajectories by cell, as rows (traces.parquet), and the choice of cells that a figure shows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf, log, nan
from typing import Any

import numpy as np
import pandas as pd

from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.run.trace import Trace, read
from fovea.study.store import Store

MAX_CELLS = 8  # cells per figure, at most


@dataclass(frozen=True)
class Traced:
    """A cell with its traces by sample key, all over the same steps."""

    cell: Cell
    traces: dict[str, Trace]

    @property
    def sigma(self) -> np.ndarray:
        return next(iter(self.traces.values())).sigma

    def continuity(self) -> np.ndarray:
        """Return `Trace.continuity` of each image, (images, steps)."""
        return np.array([trace.continuity() for trace in self.traces.values()])

    def departure(self) -> np.ndarray:
        """Return the error averaged over tokens, (images, steps + 1), with the finished image last.

        Images whose dense baseline could not be run are left out.
        """
        pairs = ((t.error, t.end) for t in self.traces.values())
        found = [
            [*error.mean(1), end.mean()] for error, end in pairs if error is not None and end is not None
        ]
        return np.array(found).reshape(len(found), len(self.sigma) + 1)


def traced(plan: Plan, store: Store) -> list[Traced]:
    """Return the cells with traces, in the plan's order of cells and images."""
    found = []
    for cell in plan.cells:
        traces = read(store, cell.id)
        own = {key: traces[key] for key in plan.keys if key in traces}
        if own:
            found.append(Traced(cell, own))
    return found


def chosen(cells: Sequence[Cell], store: Store, most: int = MAX_CELLS) -> list[Cell]:
    """Select at most `most` cells for a figure, in the order of the table.

    Methods take turns, then the series of a method, then its settings, those nearest to half the dense FLOPs
    first.
    """
    if len(cells) <= most:
        return list(cells)
    methods: dict[str, dict[str, list[Cell]]] = {}
    for cell in sorted(cells, key=lambda cell: _cost_distance(cell, store)):
        methods.setdefault(cell.method["_target_"], {}).setdefault(cell.series, []).append(cell)
    turns = [interleaved(series.values()) for series in methods.values()]
    first = {cell.id for cell in interleaved(turns)[:most]}
    return [cell for cell in cells if cell.id in first]


def chosen_traced(found: Sequence[Traced], store: Store, most: int = MAX_CELLS) -> list[Traced]:
    """Select traced cells as `chosen` does."""
    cells = chosen([one.cell for one in found], store, most)
    return [one for one in found if one.cell in cells]


def interleaved(lists: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Interleave lists: the first of each, the second of each, ..."""
    return [one for turn in zip_longest(*lists) for one in turn if one is not None]


def _cost_distance(cell: Cell, store: Store) -> float:
    """Return how far a cell's FLOPs are from half of the dense ones, as a log ratio."""
    own, dense = (_flops(store, i) for i in (cell.id, cell.dense))
    return abs(log(dense / own / 2)) if own and dense else inf


def _flops(store: Store, cell: str) -> float:
    known = store.samples(cell).flops
    return known.counted / known.images if known else 0.0


def selection_note(shown: Sequence[Any], of: Sequence[Any]) -> str:
    """Return a line for a figure's title on which cells it shows; empty if it shows all."""
    if len(shown) == len(of):
        return ""
    return f"\n{len(shown)} of {len(of)} cells: of each method in turn those nearest to half the dense FLOPs"


def records(cells: Sequence[Traced], random_weights: bool) -> list[dict[str, Any]]:
    """Return one row per cell, image and step; the finished image comes last, at sigma 0.

    error_mean, error_p95: over tokens, see `Trace.error`.
    tokens: mean share of the model that the tokens had.
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
    """Return the contents of traces.parquet."""
    return pd.DataFrame(records(cells, random_weights)).to_parquet(index=False)

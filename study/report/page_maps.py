"""Maps over the image, step by step, as data of the page: which tokens ran; and, where trajectories were
traced, their scores and their distance to the dense one."""

import base64
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fovea.study.config.prompts import Sample
from fovea.study.plan.plan import Plan
from fovea.study.run import trace
from fovea.study.run.trace import Trace
from fovea.study.store import Store

TOP = 99  # percentile at the end of the scale: a few runaway tokens must not hide the rest
KINDS: dict[str, Callable[[Trace], np.ndarray | None]] = {
    "error": lambda t: t.error,
    "score": lambda t: t.score,
}
Maps = dict[str, dict[str, list[dict[str, Any] | None]]]  # kind -> cell id -> one per sample


def maps(plan: Plan, store: Store, samples: Sequence[Sample]) -> Maps:
    """Kinds and cells that have none are left out, and so are cells whose tokens all had the same."""
    traced = {cell.id: trace.read(store, cell.id) for cell in plan.cells}
    found = {"ran": _per_cell(plan, lambda cell: _ran(store, cell, samples))}
    for kind, of in KINDS.items():
        tops = [_top(of(t[s.key]) for t in traced.values() if s.key in t) for s in samples]

        def drawn(cell: str, of: Callable = of, tops: Sequence[float] = tops) -> list[Any]:
            own = traced[cell]
            return [
                _scaled(own[s.key], of, top) if s.key in own and top else None
                for s, top in zip(samples, tops, strict=True)
            ]

        found[kind] = _per_cell(plan, drawn)
    return {kind: cells for kind, cells in found.items() if cells}


def _per_cell(plan: Plan, of: Callable[[str], list[Any]]) -> dict[str, list[Any]]:
    every = {cell.id: of(cell.id) for cell in plan.cells}
    return {cell: each for cell, each in every.items() if any(each)}


def _ran(store: Store, cell: str, samples: Sequence[Sample]) -> list[dict[str, Any] | None]:
    found = store.focus(cell, [s.key for s in samples])
    differ = {key: had for key, had in found.items() if np.ptp(had, axis=(1, 2)).any()}
    return [_shares(differ[s.key]) if s.key in differ else None for s in samples]


def _shares(had: np.ndarray) -> dict[str, Any]:
    """had: (steps, rows, columns). curve: how much of a full step's work each step was."""
    curve = [round(float(x), 4) for x in had.mean((1, 2))]
    return _levels(had) | {"top": 1.0, "curve": curve}


def _levels(shares: np.ndarray) -> dict[str, Any]:
    """Values from 0 to 1, (steps, rows, columns), as base64 of their compressed bytes in 255ths."""
    levels = zlib.compress((shares * 255).round().astype(np.uint8).tobytes())
    names = zip(("steps", "rows", "columns"), shares.shape, strict=True)
    return dict(names) | {"levels": base64.b64encode(levels).decode()}


def _top(every: Iterable[np.ndarray | None]) -> float:
    """The end of the scale of one sample, the same for all cells, so that they compare."""
    values = [x[np.isfinite(x)] for x in every if x is not None]
    joined = np.concatenate(values) if values else np.zeros(0)
    return float(np.percentile(joined, TOP)) if joined.size else 0.0


def _scaled(own: Trace, of: Callable[[Trace], np.ndarray | None], top: float) -> dict[str, Any] | None:
    """Levels of 255 from 0 to `top`, above which they saturate; what is not finite does, too. curve: one
    figure per step, of the values as they are."""
    values = of(own)
    if values is None:
        return None
    share = np.nan_to_num(values / top, nan=1.0, posinf=1.0).clip(0, 1)
    curve = own.continuity() if values is own.score else values.mean(1)
    return _levels(own.over_image(share)) | {
        "top": top,
        "curve": [round(float(x), 4) if np.isfinite(x) else None for x in curve],
        "sigma": [round(float(x), 4) for x in own.sigma],
    }

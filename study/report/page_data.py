"""The JSON data that the page's scripts draw: cells with their figures, images, and per-step maps."""

import base64
import io
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from fovea.eval import Score
from fovea.study.analysis.row import Row
from fovea.study.config.prompts import Sample
from fovea.study.picture import pixels, size
from fovea.study.plan.plan import Plan
from fovea.study.report.maps import varying_shares
from fovea.study.report.study_table import shown_scores
from fovea.study.report.table import Table, formatted
from fovea.study.run import trace
from fovea.study.run.trace import Trace
from fovea.study.store import Store

PROMPTS, SIDE = 8, 512  # largest number of prompts, and of pixels to a side
PIXELS = 24_000_000  # in all images: with many cells fewer prompts are shown, so that the page opens quickly
SMALL = 128  # images up to this side are included as stored
QUALITY = 85  # of larger ones, as WebP
TOP = 99  # percentile at the end of a map's scale, so that outlier tokens do not hide the rest
Kind = Literal["error", "score"]  # of the maps of a trace
KINDS: tuple[Kind, ...] = ("error", "score")
EncodedMaps = dict[str, dict[str, list[dict[str, Any] | None]]]  # kind -> cell id -> one per sample


def collected(plan: Plan, store: Store, rows: Sequence[Row], table: Table) -> dict[str, Any]:
    """Return all data of the page."""
    samples = shown_samples(plan, store)
    head, *body = table.lines()
    return {
        "cost": plan.settings.cost,
        "columns": head,
        "about": {score.name: _columns_about(score, table) for score in shown_scores(rows)},
        "cells": [_cell(row, line, samples) for row, line in zip(rows, body, strict=True)],
        "samples": [{"prompt": s.prompt.text, "seed": s.seed} for s in samples],
        "images": embedded_images(plan, store, samples),
        "sizes": sizes(plan, store, samples),
        "scope": scope(plan, store, samples),
        "maps": encoded_maps(plan, store, samples),
        "best": best(rows),
    }


def best(rows: Sequence[Row]) -> str | None:
    """Return the id of the cell to show first.

    It is the one with the largest gain in the first score that has gains, else the last method's cell with
    images, else the last cell with images.
    """
    for name in (score.name for score in shown_scores(rows)):
        gained = [row for row in rows if name in row.gain]
        if gained:
            return max(gained, key=lambda row: row.gain[name].value).cell.id
    made = [row for row in rows if row.n]
    last = [row for row in made if row.cell.role == "method" and not row.cell.off] or made
    return last[-1].cell.id if last else None


def _columns_about(score: Score, table: Table) -> list[int]:
    """Return the indices of the table columns about a score."""
    own = (score.name, f"{score.name}_gain", f"{score.name}_verdict")
    return [i for i, column in enumerate(table.shown) if column.key in own]


def _cell(row: Row, line: Sequence[str], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return a cell's data. texts: its line of the table. near: per-sample likeness scores to dense."""
    return {
        "id": row.cell.id,
        "label": row.cell.label,
        "role": row.cell.role,
        "dense": row.cell.dense,
        "front": {name: round(share, 3) for name, share in row.front.items() if math.isfinite(share)},
        "texts": list(line),
        "near": {
            score.heading: _per_sample(row, score, samples)
            for score in row.scores.values()
            if score.facts.kind == "likeness" and not score.facts.hidden
        },
    }


def _per_sample(row: Row, score: Score, samples: Sequence[Sample]) -> list[str | None]:
    own = dict(zip(row.keys, score.per_image, strict=True)) if score.per_image else {}
    return [formatted(own[s.key]) if s.key in own else None for s in samples]


def shown_samples(plan: Plan, store: Store) -> list[Sample]:
    """Return the samples to show: the first ones that any cell has an image of."""
    available = (s for s in plan.samples if any(store.finished(cell.id, s.key) for cell in plan.cells))
    samples = list(islice(available, PROMPTS))
    if not samples:
        return []
    area = sum(width * height for width, height in sizes(plan, store, samples).values())
    return samples[: max(1, PIXELS // area)]


def embedded_images(plan: Plan, store: Store, samples: Sequence[Sample]) -> dict[str, list[str | None]]:
    """Return one data URI per sample by cell id, None for missing images."""
    found: dict[str, list[str | None]] = {}
    for cell in plan.cells:
        files = [store.finished(cell.id, s.key) for s in samples]
        found[cell.id] = [embedded(file) if file else None for file in files]
    return found


def embedded(path: Path) -> str:
    image = Image.fromarray(pixels(path))
    if max(image.size) <= SMALL:
        return data_uri("png", path.read_bytes())
    stream = io.BytesIO()
    image.resize(_fitted(image.size), Image.Resampling.LANCZOS).save(stream, "WEBP", quality=QUALITY)
    return data_uri("webp", stream.getvalue())


def data_uri(kind: Literal["png", "webp"], image: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def sizes(plan: Plan, store: Store, samples: Sequence[Sample]) -> dict[str, tuple[int, int]]:
    """Return the size of the included images by cell id, (width, height)."""
    return {cell: _fitted(stored) for cell, stored in _stored_sizes(plan, store, samples).items()}


def scope(plan: Plan, store: Store, samples: Sequence[Sample]) -> str:
    """Return a note on which images are included and how they are compressed."""
    if not samples:
        return "No image was made."
    stored = dict.fromkeys(_stored_sizes(plan, store, samples).values())
    smaller = [(_fitted(full), full) for full in stored if _fitted(full) != full]
    parts = []
    if len(samples) < len(plan.samples):
        parts.append(f"{len(samples)} of {len(plan.samples)} images per cell are in this file")
    for (width, height), full in smaller:
        parts.append(f"at {width} × {height} of {full[0]} × {full[1]} pixels")
    if max(map(max, stored)) > SMALL:
        parts.append(f"as WebP of quality {QUALITY}")
    tail = "; the stored images lie beside it in cells/*/images." if parts else ""
    return ", ".join(parts) + tail


def _stored_sizes(plan: Plan, store: Store, samples: Sequence[Sample]) -> dict[str, tuple[int, int]]:
    """Return the size of the images by cell id, (width, height). A cell's images are all of one size."""
    files = {cell.id: [store.finished(cell.id, sample.key) for sample in samples] for cell in plan.cells}
    first = {cell: next(filter(None, found), None) for cell, found in files.items()}
    return {cell: size(file) for cell, file in first.items() if file}


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1, SIDE / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def encoded_maps(plan: Plan, store: Store, samples: Sequence[Sample]) -> EncodedMaps:
    """Return maps by kind, cell and sample; kinds and cells without any map are left out.

    `ran` maps leave out cells in which all tokens are treated alike.
    """
    traced = {cell.id: trace.read(store, cell.id) for cell in plan.cells}
    found = {"ran": {cell.id: _ran_maps(store, cell.id, samples) for cell in plan.cells}}
    for kind in KINDS:
        tops = {s.key: _scale_end(traced.values(), s.key, kind) for s in samples}
        found[kind] = {
            cell: [_encoded_map(own.get(key), kind, top) for key, top in tops.items()]
            for cell, own in traced.items()
        }
    found = {kind: {cell: each for cell, each in cells.items() if any(each)} for kind, cells in found.items()}
    return {kind: cells for kind, cells in found.items() if cells}


def _ran_maps(store: Store, cell: str, samples: Sequence[Sample]) -> list[dict[str, Any] | None]:
    varying = varying_shares(store, cell, [s.key for s in samples])
    return [_encoded_shares(varying[s.key]) if s.key in varying else None for s in samples]


def _encoded_shares(had: np.ndarray) -> dict[str, Any]:
    """Encode shares of the model per token, (steps, rows, columns). curve: mean share of each step."""
    curve = [round(float(x), 4) for x in had.mean((1, 2))]
    return _encoded(had) | {"top": 1.0, "curve": curve}


def _encoded(shares: np.ndarray) -> dict[str, Any]:
    """Encode values from 0 to 1, (steps, rows, columns), as base64 of zlib-compressed uint8."""
    levels = zlib.compress((shares * 255).round().astype(np.uint8).tobytes())
    names = zip(("steps", "rows", "columns"), shares.shape, strict=True)
    return dict(names) | {"levels": base64.b64encode(levels).decode()}


def _scale_end(traced: Iterable[Mapping[str, Trace]], key: str, kind: Kind) -> float:
    """Return the end of the scale of one sample, shared by all cells so that they are comparable."""
    every: list[np.ndarray | None] = [getattr(own[key], kind) for own in traced if key in own]
    values = [x[np.isfinite(x)] for x in every if x is not None]
    joined = np.concatenate(values) if values else np.zeros(0)
    return float(np.percentile(joined, TOP)) if joined.size else 0.0


def _encoded_map(own: Trace | None, kind: Kind, top: float) -> dict[str, Any] | None:
    """Encode a map of a trace, if there is one, on a scale from 0 to `top`.

    Larger and non-finite values saturate.

    curve: one value per step, from the unscaled values.
    """
    values: np.ndarray | None = getattr(own, kind, None)
    if own is None or values is None or not top:
        return None
    share = np.nan_to_num(values / top, nan=1.0, posinf=1.0).clip(0, 1)
    curve = own.continuity() if kind == "score" else values.mean(1)
    return _encoded(own.over_image(share)) | {
        "top": top,
        "curve": [round(float(x), 4) if np.isfinite(x) else None for x in curve],
        "sigma": [round(float(x), 4) for x in own.sigma],
    }

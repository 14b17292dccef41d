"""The lossless floor: how far the dense model's images move by what is no method at all, another dtype or
another size of a batch, or, as the other extreme, another seed. Made by scripts/floor.py, kept in the study's
folder."""

import math
from collections.abc import Mapping
from typing import Any

from fovea.eval import Score
from fovea.eval.facts import Facts
from fovea.study.plan.cells import Cell
from fovea.study.store import Store, read_json, write_json

FILE = "floor.json"
Floor = Mapping[str, Mapping[str, Score]]  # what was changed -> score by name


def floor(store: Store, cell: Cell) -> Floor:
    """Of the dense cell; nothing where it was not measured, or was of another cell."""
    known = (read_json(store.folder / FILE) or {}).get(cell.id, {})
    return {change: {s["name"]: _read(s) for s in scores} for change, scores in known.items()}


def save(store: Store, cell: Cell, found: Floor) -> None:
    known = read_json(store.folder / FILE) or {}
    changes = {change: [_plain(s) for s in scores.values()] for change, scores in found.items()}
    write_json(store.folder / FILE, known | {cell.id: known.get(cell.id, {}) | changes})


def _plain(score: Score) -> dict[str, Any]:
    """JSON has no infinity: PSNR of images that are all the same."""
    value = score.value if score.value is None or math.isfinite(score.value) else str(score.value)
    kept = ("name", "se", "n", "unavailable", "remedy")
    return {"value": value, "facts": score.facts.plain()} | {key: getattr(score, key) for key in kept}


def _read(plain: Mapping[str, Any]) -> Score:
    known = dict(plain)
    value, facts = known.pop("value"), Facts(**known.pop("facts"))
    return Score(value=None if value is None else float(value), facts=facts, **known)

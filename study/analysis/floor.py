"""The lossless floor: how far the images of a dense cell move by what is no method at all, another dtype or
another size of a batch, or, as the other extreme, another seed. Measured by scripts/floor.py."""

import math
from collections.abc import Mapping
from typing import Any

from fovea.eval import Score
from fovea.eval.facts import Facts
from fovea.study.files import read_json, write_json
from fovea.study.store import Store

Floor = Mapping[str, Mapping[str, Score]]  # what was changed -> score by name
FLOOR = "floor.json"


def floor(store: Store, cell: str) -> Floor:
    """Nothing where it was not measured, or was of another cell."""
    known = (read_json(store.folder / FLOOR) or {}).get(cell, {})
    return {change: {s["name"]: _score(s) for s in scores} for change, scores in known.items()}


def save_floor(store: Store, cell: str, found: Floor) -> None:
    known = read_json(store.folder / FLOOR) or {}
    changes = {change: [_plain(s) for s in scores.values()] for change, scores in found.items()}
    write_json(store.folder / FLOOR, known | {cell: known.get(cell, {}) | changes})


def _plain(score: Score) -> dict[str, Any]:
    """JSON has no infinity: PSNR of images that are all the same."""
    value = score.value if score.value is None or math.isfinite(score.value) else str(score.value)
    kept = ("name", "se", "n", "unavailable", "remedy")
    return {"value": value, "facts": score.facts.plain()} | {key: getattr(score, key) for key in kept}


def _score(plain: Mapping[str, Any]) -> Score:
    known = dict(plain)
    value, facts = known.pop("value"), Facts(**known.pop("facts"))
    return Score(value=None if value is None else float(value), facts=facts, **known)

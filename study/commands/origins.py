"""What differs in where two studies come from, and whether their images are the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from fovea.study.commands.gather import same
from fovea.study.plan import again
from fovea.study.stored import Record, Stored

PLAIN = ("commit", "dirty", "python", "system", "threads", "random_weights")
OF_RUN = again.OF_RUN | {"results", "launcher", "logger", "sweep"}  # of the config: what touches no figure
OF_MOMENT = {"load_average"}  # of the machine
MOST = 4  # cells that are named


def differing(a: Stored, b: Stored, pairs: Sequence[tuple[Record, Record]]) -> dict[str, tuple[Any, Any]]:
    """What to the value in either."""
    x, y = _facts(a.provenance), _facts(b.provenance)
    found = {key: (x.get(key), y.get(key)) for key in dict.fromkeys([*x, *y]) if x.get(key) != y.get(key)}
    for part in ("weights", "code"):
        cells = [(_cell(a, p).get(part), _cell(b, q).get(part), q["label"]) for p, q in pairs]
        for before, after in dict.fromkeys((p, q) for p, q, _ in cells if p != q):
            labels = [label for p, q, label in cells if (p, q) == (before, after)]
            names = [*labels[:MOST], *([f"{len(labels) - MOST} more"] if len(labels) > MOST else [])]
            found[f"{part} of {', '.join(names)}"] = (before, after)
    other, shared = _noise(a, b, pairs)
    if other:
        found[f"initial noise of {other} of {shared} images"] = ("one", "another")
    return found


def identical(a: Stored, b: Stored, pair: tuple[Record, Record]) -> tuple[int, int]:
    """How many images are the same to the last bit, of how many that both have here."""
    x, y = pair
    keys = a.provenance["samples"].keys() & b.provenance["samples"].keys()
    files = [(a.image(x["cell"], key), b.image(y["cell"], key)) for key in keys]
    there = [(p, q) for p, q in files if p and q]
    return sum(same(p, q) for p, q in there), len(there)


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in record.get("config", {}).items() if key not in OF_RUN}
    machine = {key: v for key, v in (record.get("machine") or {}).items() if key not in OF_MOMENT}
    prompts = record.get("prompts") or {}
    return {
        **{key: record.get(key) for key in PLAIN},
        **_flat({"package": record.get("packages"), "machine": machine}),
        **_flat(config),
        "images drawn": prompts.get("drawn"),
        "prompt set": (prompts.get("set") or {}).get("hash"),
    }


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _cell(study: Stored, record: Record) -> Record:
    return study.provenance["cells"].get(record["cell"], {})


def _noise(a: Stored, b: Stored, pairs: Sequence[tuple[Record, Record]]) -> tuple[int, int]:
    """Images of both that did not start from the same noise, and how many of both there are."""
    other, shared = 0, 0
    x, y = ({(r["cell"], r["key"]): r["noise"] for r in study.samples} for study in (a, b))
    for p, q in pairs:
        keys = {key for cell, key in x if cell == p["cell"]} & {key for cell, key in y if cell == q["cell"]}
        shared += len(keys)
        other += sum(x[p["cell"], key] != y[q["cell"], key] for key in keys)
    return other, shared

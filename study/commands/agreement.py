"""Whether studies can be merged: the same weights, packages, code, noise, prompts and metrics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fovea.study.config.errors import Refused
from fovea.study.plan.fingerprint import targets_of
from fovea.study.store import Store
from fovea.study.stored import Stored

Fact = tuple[str, str, str]  # of what, its value, in which study
MOST = 12  # differences that are told


def agree(said: str, studies: Sequence[Stored]) -> None:
    """Refused, with all that differs and the values, where a merged table would mislead."""
    found: dict[str, dict[str, list[str]]] = {}
    for what, value, place in chain.from_iterable(map(_facts, studies)):
        names = found.setdefault(what, {}).setdefault(value, [])
        names += [place] if place not in names else []
    differing = {what: values for what, values in found.items() if len(values) > 1}
    if differing or (ragged := _ragged(studies)):
        lines = [f"  {what}: {_told(values)}" for what, values in differing.items()] or ragged
        shown = lines[:MOST] + ([f"  and {len(lines) - MOST} more"] if len(lines) > MOST else [])
        raise Refused("\n".join([f"{said}: these do not belong in one table, they differ in", *shown]))


def _told(values: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())


def _facts(study: Stored) -> Iterable[Fact]:
    name, config = str(study.folder), study.provenance["config"]
    yield "weights, trained or random", "random" if study.random_weights else "trained", name
    yield "cost (set again by rescore=FOLDER cost=...)", str(config["cost"]), name
    yield "margins (set again by rescore=FOLDER)", _text(config["eval"].get("margin")), name
    yield "metrics (set again by rescore=FOLDER metric=[...])", ", ".join(config["metric"]), name
    for metric, node in config["metric"].items():
        yield f"settings of {metric} (set again by rescore=FOLDER metric.{metric}...)", _text(node), name
    for cell, known in study.provenance["cells"].items():
        yield from _of_cell(study, cell, known)


def _of_cell(study: Stored, cell: str, known: Mapping[str, Any]) -> Iterable[Fact]:
    name, model = str(study.folder), known["model"]
    yield f"weights of {model_name(known)}", str(known["weights"]), name
    for package, version in known["packages"].items():
        yield package, version.partition("+")[0], name  # the same source built for another device
    yield f"code of {' with '.join(targets_of(known['method']))}", str(known["code"]), name
    size = f"{known['weights']} at {model['height']} x {model['width']}"
    records = Store(study.folder).samples(cell)
    for prompt, seed, noise in zip(*map(records.column, ("prompt", "seed", "noise")), strict=True):
        yield f"initial noise of {model_name(known)}, {size}, {prompt!r}, seed {seed}", noise, name


def _ragged(studies: Sequence[Stored]) -> list[str]:
    """Cells that would not have the same prompts and seeds as the others."""
    drawn: dict[str, set[str]] = {}
    for study in studies:
        for cell in study.provenance["cells"]:
            drawn.setdefault(cell, set()).update(study.provenance["samples"])
    every = set().union(*drawn.values())
    labels = {c: r["label"] for study in studies for c, r in study.provenance["cells"].items()}
    return [
        f"  prompts and seeds: {labels[cell]} has {len(keys)} of {len(every)} images; run it with all of them"
        for cell, keys in drawn.items()
        if keys != every
    ]


def model_name(known: Mapping[str, Any]) -> str:
    """Of a cell: that of its weights' folder or hub id."""
    return Path(str(known["model"]["path"])).name


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)

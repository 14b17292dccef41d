"""The provenance of several studies as one: what they share, and what their cells are called together."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fovea.study.commands.agreement import model_name
from fovea.study.config.errors import Refused
from fovea.study.stored import Record, Stored

BULK = ("cells", "samples", "noise", "merged")
Trait = Callable[[Mapping[str, Any]], str]
TRAITS: tuple[Trait, ...] = (
    lambda record: str(record["machine"]),
    lambda record: f"batch {record['batch']}",
    lambda record: f"{record['model']['height']} x {record['model']['width']}",
    lambda record: f"{record['model']['dtype']}",
    lambda record: f"guidance {record['model']['guidance']}",
    lambda record: f"{record['model']['steps']} steps",
    lambda record: f"negative {record['model']['negative']!r}",
)


def merged(studies: Sequence[Stored], command: Sequence[str]) -> Record:
    """The provenance of all of them: what they share as it is, what differs side by side, each one's own in
    `merged.sources`."""
    from fovea.study.run.provenance import drawn, git, said

    records = [study.provenance for study in studies]
    by_size = sorted(records, key=lambda record: -len(record["samples"]))
    samples = {key: sample for record in by_size for key, sample in record["samples"].items()}
    seeds = list(dict.fromkeys(seed for record in records for seed in record["seeds"]))
    sources = [
        {"study": str(s.folder), "cells": list(s.provenance["cells"])} | _own(s.provenance) for s in studies
    ]
    common = [key for key in records[0] if key not in BULK and all(key in record for record in records)]
    shared = {key: side_by_side([record[key] for record in records]) for key in common}
    papers = [record["config"].get("paper") for record in records]
    config = records[0]["config"] | {"n": max(r["config"]["n"] for r in records), "seeds": seeds}
    config["paper"] = papers[0] if all(paper == papers[0] for paper in papers) else None
    return shared | {
        "command": said(command),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": seeds,
        "prompts": drawn(samples, records[0]["prompts"]["set"]),
        "config": config,
        "cells": _complete(named_apart(studies)),
        "samples": samples,
        "merged": {**git(), "sources": sources},
    }


def _own(record: Record) -> Record:
    """What a source's provenance says of it, but for each cell and sample."""
    return {key: value for key, value in record.items() if key not in BULK}


def _complete(cells: dict[str, Record]) -> dict[str, Record]:
    """Baselines first, step reduction last, as in any study. Refused if a baseline is missing."""
    for record in cells.values():
        if record["dense"] not in cells:
            raise Refused(f"merge: the baseline of {record['label']} is in none of these studies")
    order = {"dense": (0, 0), "method": (1, 0), "diagnosis": (1, 0)}

    def place(item: tuple[str, Record]) -> tuple[int, int]:
        return order.get(item[1]["role"], (2, -(item[1]["method"].get("steps") or 0)))

    return dict(sorted(cells.items(), key=place))


def side_by_side(values: Sequence[Any]) -> Any:
    """The value that all have; of mappings, one that is missing among them, key by key; else the different
    ones, as text."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, dict | None) for value in values):
        keys = dict.fromkeys(key for value in values for key in value or {})
        return {key: side_by_side([(value or {}).get(key) for value in values]) for key in keys}
    if all(isinstance(value, bool) for value in values):
        return any(values)
    return " / ".join(dict.fromkeys(str(value) for value in values))


def named_apart(studies: Sequence[Stored]) -> dict[str, Record]:
    """The records of all cells. Several models stand in front of their cells' names, as in a sweep of models;
    where two names are still the same, the machine follows, or whatever else sets the cells apart."""
    cells: dict[str, Record] = {}
    for study in studies:
        for cell, record in study.provenance["cells"].items():
            cells.setdefault(cell, record)
    if len({model_name(record) for record in cells.values()}) > 1:
        cells = {cell: _of_model(record) for cell, record in cells.items()}
    for trait in TRAITS:
        cells = _apart(cells, trait)
    return cells


def _of_model(record: Record) -> Record:
    name = model_name(record)
    if "model" in record["axes"]:  # it stands in front already
        return record
    series = {"series": f"{name} {record['series']}"} if "series" in record else {}
    return record | series | {"label": f"{name} {record['label']}", "axes": {"model": name} | record["axes"]}


def _apart(cells: dict[str, Record], trait: Trait) -> dict[str, Record]:
    """The trait behind the names that are there more than once, if it differs between them, and behind the
    series of such cells."""
    values: dict[str, list[str]] = {}
    for record in cells.values():
        values.setdefault(record["label"], []).append(trait(record))
    twice = {label for label, found in values.items() if len(found) > 1 and len(set(found)) > 1}
    series = {record.get("series") for record in cells.values() if record["label"] in twice}
    found = {}
    for cell, record in cells.items():
        mark = f" @ {trait(record)}"
        label = {"label": record["label"] + mark} if record["label"] in twice else {}
        of = {"series": record["series"] + mark} if record.get("series") in series - {None} else {}
        found[cell] = record | label | of
    return found

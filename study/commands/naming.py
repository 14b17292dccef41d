"""Cells of several studies by their ids, with labels that tell them apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fovea.study.commands.agreement import model_name
from fovea.study.stored import Record, Stored

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

"""Check whether several studies can be merged, by weights, packages, code, noise, prompts and metrics; and
combine their provenance and cell labels."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fovea.study.config.compose import flat
from fovea.study.config.errors import Refused, as_text
from fovea.study.plan.fingerprint import code_entries
from fovea.study.run.provenance import command_line, drawn, git, now
from fovea.study.store import Store
from fovea.study.stored import Record, Stored

Fact = tuple[str, str, str]  # name, value, study
MAX_LISTED = 12  # differences that are listed
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


def check_compatible(argument: str, studies: Sequence[Stored]) -> None:
    """Raise Refused, listing all differences, if a merged table would be misleading."""
    found: dict[str, dict[str, list[str]]] = {}
    for what, value, place in chain.from_iterable(map(_facts, studies)):
        names = found.setdefault(what, {}).setdefault(value, [])
        names += [place] if place not in names else []
    differing = {what: values for what, values in found.items() if len(values) > 1}
    lines = [f"  {what}: {_listed(values)}" for what, values in differing.items()]
    if lines := lines or _unequal_samples(studies):
        unlisted = len(lines) - MAX_LISTED
        shown = lines[:MAX_LISTED] + ([f"  and {unlisted} more"] if unlisted > 0 else [])
        raise Refused("\n".join([f"{argument}: these do not belong in one table, they differ in", *shown]))


def _listed(values: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in values.items())


def _facts(study: Stored) -> Iterable[Fact]:
    name, config = str(study.folder), study.provenance["config"]
    yield "weights, trained or random", "random" if study.random_weights else "trained", name
    yield "cost (set again by rescore=FOLDER cost=...)", str(config["cost"]), name
    yield "margins (set again by rescore=FOLDER)", _text(config["eval"].get("margin")), name
    yield "metrics (set again by rescore=FOLDER metric=[...])", ", ".join(config["metric"]) or "none", name
    for metric, node in config["metric"].items():
        yield f"settings of {metric} (set again by rescore=FOLDER metric.{metric}...)", _text(node), name
    for cell, known in study.provenance["cells"].items():
        yield from _of_cell(study, cell, known)


def _of_cell(study: Stored, cell: str, known: Mapping[str, Any]) -> Iterable[Fact]:
    name, model = str(study.folder), known["model"]
    yield f"weights of {model_name(known)}", str(known["weights"]), name
    for package, version in known["packages"].items():
        yield package, version.partition("+")[0], name  # without the suffix of builds for another device
    if known["role"] == "steps":  # one gain is over one curve
        curve = [f"sweep.{key}={known['method'].get(key)}" for key in ("solver", "schedule")]
        yield f"step reduction of {model_name(known)}, baseline {known['dense']}", ", ".join(curve), name
    family, further, classes = code_entries(model, known["method"])
    yield f"code of {' with '.join((*classes, *further))} on {family}", str(known["code"]), name
    size = f"{known['weights']} at {model['height']} x {model['width']}"
    records = Store(study.folder).samples(cell)
    for prompt, seed, noise in zip(*map(records.column, ("prompt", "seed", "noise")), strict=True):
        yield f"initial noise of {model_name(known)}, {size}, {prompt!r}, seed {seed}", noise, name


def _unequal_samples(studies: Sequence[Stored]) -> list[str]:
    """Return a line for each cell that lacks prompts or seeds that other cells have."""
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
    """Return the name of a cell's model: the last part of its folder or hub id."""
    return Path(str(known["model"]["path"])).name


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def merged(studies: Sequence[Stored], command: Sequence[str]) -> Record:
    """Return the provenance of the merged study: shared values as they are, different ones side by side, and
    each study's own in `merged.sources`."""
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
        "command": command_line(command),
        "time": now(),
        "seeds": seeds,
        "prompts": drawn(samples, records[0]["prompts"]["set"]),
        "config": config,
        "cells": _complete(with_distinct_labels(studies)),
        "samples": samples,
        "merged": {**git(), "sources": sources},
    }


def _own(record: Record) -> Record:
    return {key: value for key, value in record.items() if key not in BULK}


def _complete(cells: dict[str, Record]) -> dict[str, Record]:
    """Return the cells in the usual order: baselines, methods, step reduction, siblings. Raises Refused if a
    baseline is missing."""
    for record in cells.values():
        if record["dense"] not in cells:
            raise Refused(f"merge: the baseline of {record['label']} is in none of these studies")
    order = {"dense": (0, 0), "method": (1, 0), "diagnosis": (1, 0), "sibling": (3, 0)}

    def place(item: tuple[str, Record]) -> tuple[int, int]:
        return order.get(item[1]["role"], (2, -(item[1]["method"].get("steps") or 0)))

    return dict(sorted(cells.items(), key=place))


def side_by_side(values: Sequence[Any]) -> Any:
    """Return the value that all share. Mappings, with None for a missing one, are combined key by key; other
    differing values are joined as text."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, dict | None) for value in values):
        keys = dict.fromkeys(key for value in values for key in value or {})
        return {key: side_by_side([(value or {}).get(key) for value in values]) for key in keys}
    if all(isinstance(value, bool) for value in values):
        return any(values)
    return " / ".join(dict.fromkeys(str(value) for value in values))


def with_distinct_labels(studies: Sequence[Stored]) -> dict[str, Record]:
    """Return the records of all cells with distinct labels. If there are several models besides siblings,
    their names are put first, as in a sweep of models; labels still equal get the machine, or another trait
    or setting that differs, appended; the id if there is none."""
    cells: dict[str, Record] = {}
    for study in studies:
        for cell, record in study.provenance["cells"].items():
            cells.setdefault(cell, record)
    if len({model_name(record) for record in cells.values() if record["role"] != "sibling"}) > 1:
        cells = {cell: _of_model(record) for cell, record in cells.items()}
    for trait in TRAITS:
        cells = _add_trait(cells, trait)
    for trait in _settings(_repeated(cells).values()):
        cells = _add_trait(cells, trait)
    by_id = {
        cell: record | {"label": f"{record['label']} @ {cell}"} for cell, record in _repeated(cells).items()
    }
    return cells | by_id


def _repeated(cells: Mapping[str, Record]) -> dict[str, Record]:
    """Return the cells whose label another has, too."""
    count = Counter(record["label"] for record in cells.values())
    return {cell: record for cell, record in cells.items() if count[record["label"]] > 1}


def _settings(records: Collection[Record]) -> Iterator[Trait]:
    """Yield the settings of the cells' models, then of their methods, as traits."""
    for node in ("model", "method"):
        for key in dict.fromkeys(key for record in records for key in flat(record[node])):
            yield partial(_setting, node, key)


def _setting(node: str, key: str, record: Mapping[str, Any]) -> str:
    return f"{key} {as_text(flat(record[node]).get(key))}"


def _of_model(record: Record) -> Record:
    name = model_name(record)
    if "model" in record["axes"]:  # the name is there already
        return record
    named = {key: f"{name} {record[key]}" for key in ("label", "series")}
    return record | named | {"axes": {"model": name} | record["axes"]}


def _add_trait(cells: dict[str, Record], trait: Trait) -> dict[str, Record]:
    """Append the trait to labels that occur more than once, if it differs between them, and to the series of
    those cells."""
    values: dict[str, list[str]] = {}
    for record in cells.values():
        values.setdefault(record["label"], []).append(trait(record))
    repeated = {label for label, found in values.items() if len(found) > 1 and len(set(found)) > 1}
    series = {record["series"] for record in cells.values() if record["label"] in repeated}
    found = {}
    for cell, record in cells.items():
        mark = f" @ {trait(record)}"
        label = {"label": record["label"] + mark} if record["label"] in repeated else {}
        of = {"series": record["series"] + mark} if record["series"] in series else {}
        found[cell] = record | label | of
    return found

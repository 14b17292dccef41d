"""merge=[a,b,...] name=NEW: studies of several machines, or several parts of a grid, as one.

Cells of one id are one cell with the samples of all. A cell of another machine has its own id, and its own
baseline: no speedup is across machines. The sources stay as they are; the new folder has hard links to their
images where the file system allows it. Tables, plots and reports are made as of any study."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fovea.study.commands.agreement import agree
from fovea.study.commands.command import Deed
from fovea.study.commands.ending import end, say_unavailable
from fovea.study.commands.gather import gather
from fovea.study.commands.naming import named_apart
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.schema import Settings
from fovea.study.plan.again import planned
from fovea.study.plan.plan import own
from fovea.study.store import Store
from fovea.study.stored import Record, Stored, find

BULK = ("cells", "samples", "noise", "merged")


def run(deed: Deed) -> int:
    from fovea.study.report.report import report
    from fovea.study.run.progress import Progress

    given = deed.only("name", "results", "logger")
    results, name = deed.plain("results", "results"), deed.plain("name")
    if not name:
        raise Refused(f"{deed.said}: the new study needs a name: name=NEW")
    own(Settings, {"prompts": "", "name": name})
    studies = _studies(deed, results)
    if (folder := Path(results) / name).exists():
        raise Refused(f"name={name}: {folder} is there already; give another name")
    agree(deed.said, studies)
    record = merged(studies, deed.arguments)
    logger = whole(load([text for text in given if text.partition("=")[0].startswith("logger")]))["logger"]
    plan = planned(folder, record, record["config"] | {"logger": logger})
    with Progress() as progress:
        say_unavailable(plan, progress)
        progress.say(f"nothing is generated: {len(plan.cells)} cells of {len(studies)} studies")
        gather(studies, folder, record)
        store = Store(folder)
        with store.lock():
            rows, summary = report(plan, store, record)
    return end(plan, store, rows, summary | {"merged": [str(study.folder) for study in studies]})


def _studies(deed: Deed, results: str) -> list[Stored]:
    found = [find(deed.said, value, results) for value in deed.folders()]
    if len({study.folder.resolve() for study in found}) < max(2, len(found)):
        raise Refused(f"{deed.said}: give two or more different studies, merge=[results/A,results/B]")
    for study in found:
        if not any(Store(study.folder).samples(cell) for cell in study.provenance["cells"]):
            raise Refused(
                f"{deed.said}: the images of {study.folder} are not here, only what was written of them; "
                "compare=[A,B] needs none"
            )
    return found


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
    shared = {key: side_by_side([r.get(key) for r in records]) for key in records[0] if key not in BULK}
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
    order = {"dense": (0, 0), "method": (1, 0)}

    def place(item: tuple[str, Record]) -> tuple[int, int]:
        return order.get(item[1]["role"], (2, -(item[1]["method"].get("steps") or 0)))

    return dict(sorted(cells.items(), key=place))


def side_by_side(values: Sequence[Any]) -> Any:
    """The value that all have; of mappings key by key; else the different ones, as text."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: side_by_side([value.get(key) for value in values]) for key in keys}
    if all(isinstance(value, bool) for value in values):
        return any(values)
    return " / ".join(dict.fromkeys(str(value) for value in values))

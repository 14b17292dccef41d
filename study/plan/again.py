"""The plan of a study that was made before, of its own record."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fovea.study.config.prompts import Prompt, Sample
from fovea.study.config.schema import COMMANDS, Settings
from fovea.study.plan.cells import Cell, Node
from fovea.study.plan.checks import unavailable
from fovea.study.plan.plan import Plan, own

OF_RUN = {"name", "plan", *COMMANDS}  # keys that say what to do, not what the study is


def planned(folder: Path, record: Mapping[str, Any], config: Node) -> Plan:
    """folder: where the study lies now. record: its provenance. config: with the metrics of now."""
    names = {f.name for f in fields(Settings)} - OF_RUN
    plain = {key: value for key, value in config.items() if key in names}
    return Plan(
        own(Settings, plain | {"results": str(folder.parent)}),
        config,
        folder.resolve().name,
        [cell(name, known) for name, known in record["cells"].items()],
        [Sample(key, Prompt(r["id"], r["prompt"]), r["seed"]) for key, r in record["samples"].items()],
        record["prompts"]["set"],
        record["random_weights"],
        unavailable(config),
    )


def cell(name: str, record: Mapping[str, Any]) -> Cell:
    of_cell = {f.name: record[f.name] for f in fields(Cell) if f.name in record}
    if "series" not in of_cell:  # a study of before it was recorded
        known = {"dense": "dense", "steps": "step reduction"}
        of_cell["series"] = known.get(record["role"], record["label"].split(" ")[0])
    rest = {key: value for key, value in record.items() if key in ("model", "method") or key not in of_cell}
    return Cell(id=name, identity=rest, **of_cell)

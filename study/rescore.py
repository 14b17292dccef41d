"""rescore=results/NAME: metrics over the images of a study that was made before.

The cells, the samples and their settings are those that its provenance holds. Nothing is generated, and
neither the model's weights nor the prompt files have to be there. What may be said beside it:

    nothing                               the study's own metrics, computed anew
    metric.NAME.KEY=VALUE                 the same with another setting
    eval.metrics=[...]                    other metrics; one that the study had keeps its settings
    eval=SUITE                            another suite, as its file has it
    eval.strict=true, cost=..., logger=...

Tables, plots and maps are written again; the provenance stays that of the images, with a note `rescored` on
who scored them."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.build import check
from study.cells import Cell, Node
from study.checks import unavailable
from study.config import load, whole
from study.plan import Plan, own
from study.prompts import Prompt, Sample
from study.refused import Refused
from study.settings import Settings, Suite
from study.store import Store, read_json

KEYS = ("eval", "metric", "cost", "logger")


def folder(arguments: Sequence[str]) -> Path | None:
    """The study to score again, if that is what the command line asks for."""
    asked = [text.partition("=")[2] for text in arguments if text.startswith("rescore=")]
    return Path(asked[-1]).expanduser() if asked and asked[-1] not in ("", "null") else None


def plan(study: Path, arguments: Sequence[str]) -> tuple[Plan, dict[str, Any]]:
    """The study as it was, with the metrics of now; and its provenance. Refused if there is no such study."""
    stored = _provenance(study)
    config = stored["config"] | _config(stored["config"], arguments)
    names = {f.name for f in fields(Settings)}
    plain = {key: value for key, value in config.items() if key in names}
    made = Plan(
        own(Settings, plain | {"results": str(study.parent), "name": None}),
        config,
        study.resolve().name,
        [_cell(name, record) for name, record in stored["cells"].items()],
        [Sample(key, Prompt(r["id"], r["prompt"]), r["seed"]) for key, r in stored["samples"].items()],
        stored["prompts"]["set"],
        stored["random_weights"],
        unavailable(config),
    )
    store = Store(study)
    if not any(store.samples(cell.id) for cell in made.cells):
        raise Refused(f"rescore={study}: its images are not here, only what was written of them")
    return made, stored


def note(stored: dict[str, Any], config: Node, arguments: Sequence[str]) -> dict[str, Any]:
    """The provenance of the images, and by what they were scored again."""
    from study.provenance import git, packages

    now = {
        "command": shlex.join(["python", "run.py", *arguments]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **git(),
        "packages": packages(),
    }
    return stored | {"config": config, "rescored": now}


def _provenance(study: Path) -> dict[str, Any]:
    """Of the last report, or else of the last start."""
    starts = sorted((study / "runs").glob("*.json"), reverse=True)
    for file in (study / "provenance.json", *starts):
        record = read_json(file)
        if record is not None and {"config", "cells", "samples", "prompts"} <= record.keys():
            return record
    older = " that this version can read" if (study / "provenance.json").is_file() else ""
    raise Refused(f"rescore={study}: no study{older}; give the folder that run.py made, results/NAME")


def _config(stored: Node, arguments: Sequence[str]) -> Node:
    """The groups and keys that a score depends on: the study's own, with what the command line changes."""
    given = [text for text in arguments if not text.startswith("rescore=")]
    for text in given:
        if _of(text) not in KEYS:
            raise Refused(
                f"{text}: the images are made; beside rescore=... only {', '.join(KEYS)} can be said"
            )
    plain = [f"cost={stored['cost']}", *given]
    if any(text.startswith("eval=") for text in given):
        config = whole(load(plain))
    else:
        names = f"eval.metrics=[{','.join(stored['metric'])}]"
        config = whole(load([names, *plain], known=stored["metric"]))
        said = {text.partition("=")[0].split(".")[1] for text in given if _of(text) == "eval"}
        config["eval"] = stored["eval"] | {key: config["eval"][key] for key in said}
    own(Suite, config["eval"], "eval")
    check(config["logger"], "logger", "study")
    return {key: config[key] for key in KEYS}


def _of(text: str) -> str:
    """The group or plain key that an argument is of."""
    return text.lstrip("+~").partition("=")[0].split(".")[0]


def _cell(name: str, record: dict[str, Any]) -> Cell:
    of_cell = {f.name: record[f.name] for f in fields(Cell) if f.name in record}
    if "series" not in of_cell:  # a study of before it was recorded
        known = {"dense": "dense", "steps": "step reduction"}
        of_cell["series"] = known.get(record["role"], record["label"].split(" ")[0])
    rest = {key: value for key, value in record.items() if key in ("model", "method") or key not in of_cell}
    return Cell(id=name, identity=rest, **of_cell)

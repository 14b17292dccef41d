"""What the page says beside its figures: what the study is, where it comes from, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.study.analysis.row import Row
from fovea.study.plan.cells import FITTED, Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.table import visible
from fovea.study.store import Store

SHOWN_PACKAGES = 8  # packages shown before the others are unfolded; those that affect results come first
MAX_TRACEBACK = 20_000  # characters of a traceback that are shown


def facts(plan: Plan, rows: Sequence[Row], origin: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the study's models, methods, images and device, as (name, text). origin: its provenance."""
    methods = [row.cell for row in rows if row.cell.role == "method"]
    dense = {row.cell.id: row.cell.label for row in rows}
    models = dict.fromkeys(_model_description(row.cell.model) for row in rows)
    names = dict.fromkeys(_method_name(cell, dense.get(cell.dense, "")) for cell in methods)
    method = ", ".join(names) if len(names) <= 4 else f"{len(names)} methods"
    method = f"{method or 'none'}, {len(methods)} setting{'' if len(methods) == 1 else 's'}"
    if off := sum(cell.off for cell in methods):
        method += f", {off} of them switched off"
    images, seeds = f"{len(plan.samples)} per cell", len(origin["seeds"])
    if seeds > 1:
        images += f", {seeds} seeds"
    return [
        ("Model", "; ".join(models)),
        ("Method", method),
        ("Images", f"{images}, prompts of {_prompt_set(plan)}"),
        ("Device", device(origin)),
    ]


def _method_name(cell: Cell, dense: str) -> str:
    """Return the series of a cell, without the model's name that precedes it if several are swept."""
    return cell.series.removeprefix(dense.removesuffix("dense")).strip()


def _model_description(node: Mapping[str, Any]) -> str:
    weights = ", random weights" if node["weights"] == "random" else ""
    guidance = f", guidance {node['guidance']:g}" if node["guidance"] else ""
    fitted = "".join(f", {key} {node[key]}" for key, plain in FITTED.items() if node.get(key, plain) != plain)
    size, name = f"{node['width']} × {node['height']}", Path(node["path"]).name
    return f"{name}{weights}, {size}, {node['steps']} steps{guidance}, {node['dtype']}{fitted}"


def _prompt_set(plan: Plan) -> str:
    return Path(plan.prompts["source"]).name


def device(origin: Mapping[str, Any]) -> str:
    """Return the GPU and its memory, or the CPU and the number of threads.

    Where merged studies differ, the provenance has texts like `2 / 4` instead of numbers.
    """
    machine, threads = origin["machine"], origin["threads"]
    if gpu := machine.get("gpu"):
        memory = machine.get("gpu_memory_bytes")
        return f"{gpu}, {memory / 2**30:.0f} GiB" if isinstance(memory, int) else gpu
    return f"{machine.get('cpu') or 'not recorded'}, {threads} thread{'' if threads == 1 else 's'}"


@dataclass(frozen=True)
class Origins:
    """The provenance section of the page.

    packages, more_packages: name and version; those that affect results come first.
    rescored: command and commit of a later rescoring, if any.
    text: everything above as text to copy, except more_packages.
    """

    command: str
    facts: list[tuple[str, str]]
    rescored: list[tuple[str, str]]
    packages: list[str]
    more_packages: list[str]
    text: str


def origins(plan: Plan, origin: Mapping[str, Any]) -> Origins:
    command, prompts = origin["command"], origin["prompts"]
    facts = [
        ("Commit", _commit(origin)),
        ("Device", device(origin)),
        ("Python", origin["python"]),
        ("System", origin["system"]),
        ("Seeds", ", ".join(map(str, origin["seeds"]))),
        ("Prompts", f"{prompts['n']} of {_prompt_set(plan)}, drawn {prompts['drawn']}"),
        ("Batch", str(plan.settings.batch)),
    ]
    rescore = origin.get("rescored")
    rescored = [("Command", rescore["command"]), ("Commit", _commit(rescore))] if rescore else []
    packages = [f"{name} {version}" for name, version in origin["packages"].items()]
    first, more = packages[:SHOWN_PACKAGES], packages[SHOWN_PACKAGES:]
    lines = [("Command", command), *facts, *((f"Rescored, {k.lower()}", v) for k, v in rescored)]
    lines.append(("Packages", ", ".join(first)))
    return Origins(command, facts, rescored, first, more, "\n".join(f"{k}: {v}" for k, v in lines))


def _commit(origin: Mapping[str, Any]) -> str:
    if not origin["commit"]:
        return "not recorded: made outside a checkout"
    return f"{origin['commit']}, {'with changes that are not committed' if origin['dirty'] else 'clean'}"


@dataclass(frozen=True)
class Failure:
    """One failure of a cell.

    traceback: empty if no exception was raised.
    made: number of images that the cell has nevertheless, of those planned.
    overcome: true if a later run completed the cell.
    """

    label: str
    message: str
    traceback: str
    time: str
    made: str
    overcome: bool


def failures(store: Store, rows: Sequence[Row]) -> list[Failure]:
    """Return all recorded failures in the order of the table, and those found in the rows, such as no-ops."""
    found = []
    for row in rows:
        label, made, complete = row.cell.label, f"{row.n} of {row.planned}", row.n == row.planned
        recorded = store.samples(row.cell.id).failures
        for one in recorded:
            message = visible(f"{one.type}: {one.message}")
            found.append(Failure(label, message, _traceback(one.traceback), one.time, made, complete))
        if row.failure and (complete or not recorded):
            found.append(Failure(label, visible(row.failure), "", "", made, False))
    return found


def _traceback(text: str) -> str:
    """Return the end of a traceback, which names the error, with control characters removed."""
    lines = text[-MAX_TRACEBACK:].splitlines()
    return "\n".join(visible(line) for line in lines)

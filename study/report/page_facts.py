"""What a report says around its table: what was run, where it comes from, and what failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.study.analysis.row import Row
from fovea.study.plan.cells import FITTED, Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.table import visible
from fovea.study.store import Store

FIRST = 8  # packages that touch results, shown before the rest unfolds
LONG = 20_000  # characters that are shown of a traceback


@dataclass(frozen=True)
class Head:
    name: str
    facts: list[tuple[str, str]]


def head(plan: Plan, rows: Sequence[Row], origin: Mapping[str, Any]) -> Head:
    """Model, method, how many images of what, device."""
    own = [row.cell for row in rows if row.cell.role == "method"]
    dense = {row.cell.id: row.cell.label for row in rows}
    names = list({_method(cell, dense.get(cell.dense, "")): None for cell in own})
    method = ", ".join(names) if len(names) <= 4 else f"{len(names)} methods"
    models = list({_model(row.cell.model): None for row in rows})
    seeds = origin.get("seeds") or plan.settings.seeds
    images = f"{len(plan.samples)} per cell"
    if len(seeds) > 1:
        images += f", {len(seeds)} seeds"
    facts = [
        ("Model", "; ".join(models)),
        ("Method", f"{method or 'none'}, {len(own)} setting{'s' * (len(own) != 1)}{_off(own)}"),
        ("Images", f"{images}, prompts of {_set(plan)}"),
        ("Device", device(origin)),
    ]
    return Head(plan.name, facts)


def _method(cell: Cell, dense: str) -> str:
    """Its series, without the model that stands before it where several are swept."""
    return cell.series.removeprefix(dense.removesuffix("dense")).strip()


def _off(cells: Sequence[Cell]) -> str:
    off = sum(cell.off for cell in cells)
    return f", {off} of them switched off" if off else ""


def _model(node: Mapping[str, Any]) -> str:
    name = Path(str(node.get("path"))).name or str(node.get("family", ""))
    weights = ", random weights" if node.get("weights") == "random" else ""
    size = f"{node.get('width')} × {node.get('height')}"
    steps = f", {node['steps']} steps" if node.get("steps") else ""
    guidance = f", guidance {node['guidance']:g}" if node.get("guidance") else ""
    fitted = "".join(f", {key} {node[key]}" for key, plain in FITTED.items() if node.get(key, plain) != plain)
    return f"{name}{weights}, {size}{steps}{guidance}, {node.get('dtype', '')}".rstrip(", ") + fitted


def _set(plan: Plan) -> str:
    source = plan.prompts.get("source") if isinstance(plan.prompts, Mapping) else None
    return Path(str(source or plan.settings.prompts)).name


def device(origin: Mapping[str, Any]) -> str:
    machine = origin.get("machine") or {}
    memory = machine.get("gpu_memory_bytes")
    if machine.get("gpu"):
        return f"{machine['gpu']}{f', {memory / 2**30:.0f} GiB' if memory else ''}"
    threads = origin.get("threads") or machine.get("threads_torch")
    cores = f", {threads} thread{'s' * (threads > 1)}" if threads else ""
    return f"{machine.get('cpu') or 'not recorded'}{cores}"


@dataclass(frozen=True)
class Origins:
    """text: all of it but the packages, to copy. rescored: by what the metrics were computed again."""

    command: str
    facts: list[tuple[str, str]]
    packages: list[tuple[str, str]]
    rescored: list[tuple[str, str]]
    text: str

    @property
    def first(self) -> list[tuple[str, str]]:
        return self.packages[:FIRST]

    @property
    def rest(self) -> list[tuple[str, str]]:
        return self.packages[FIRST:]


def origins(plan: Plan, origin: Mapping[str, Any]) -> Origins:
    prompts = origin.get("prompts") or {}
    facts = [
        ("Commit", _commit(origin)),
        ("Device", device(origin)),
        ("Python", str(origin.get("python") or "not recorded")),
        ("System", str(origin.get("system") or "not recorded")),
        ("Seeds", ", ".join(map(str, origin.get("seeds") or plan.settings.seeds))),
        (
            "Prompts",
            f"{prompts.get('n', len(plan.samples))} of {_set(plan)}, drawn {prompts.get('drawn', '–')}",
        ),
        ("Batch", str(plan.settings.batch)),
    ]
    command = str(origin.get("command") or "not recorded")
    again = origin.get("rescored") or {}
    rescored = [("Command", str(again.get("command", ""))), ("Commit", _commit(again))] if again else []
    packages = [(str(k), str(v)) for k, v in (origin.get("packages") or {}).items()]
    lines = [("Command", command), *facts, *((f"Rescored, {k.lower()}", v) for k, v in rescored)]
    lines.append(("Packages", ", ".join(f"{k} {v}" for k, v in packages[:FIRST])))
    return Origins(command, facts, packages, rescored, "\n".join(f"{k}: {v}" for k, v in lines))


def _commit(origin: Mapping[str, Any]) -> str:
    commit, dirty = origin.get("commit"), origin.get("dirty")
    if not commit:
        return "not recorded: made outside a checkout"
    return f"{commit}{', with changes that are not committed' if dirty else ', clean'}"


@dataclass(frozen=True)
class Failure:
    """made: images of the cell that are there all the same, of those planned; a later run may have made up
    for the failure. traceback: empty where nothing was raised."""

    label: str
    message: str
    traceback: str
    time: str
    made: str
    overcome: bool


def failures(plan: Plan, store: Store, rows: Sequence[Row]) -> list[Failure]:
    """Every one, in the order of the table; of a cell that fails by its rows, such as a no-op, that one."""
    found = []
    for row in rows:
        noted = store.samples(row.cell.id).failures
        made, whole = f"{row.n} of {row.planned}", row.n == row.planned
        found += [
            Failure(
                row.cell.label,
                visible(f"{f.type}: {f.message}"),
                _traceback(f.traceback),
                f.time,
                made,
                whole,
            )
            for f in noted
        ]
        if row.failure and (whole or not noted):
            found.append(Failure(row.cell.label, visible(row.failure), "", "", made, False))
    return found


def _traceback(text: str) -> str:
    """Its end, which names the error, line by line."""
    lines = text[-LONG:].splitlines()
    return "\n".join(visible(line) for line in lines)

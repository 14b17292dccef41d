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
    names = list({_method_name(cell, dense.get(cell.dense, "")): None for cell in methods})
    method = ", ".join(names) if len(names) <= 4 else f"{len(names)} methods"
    plural = "s" if len(methods) != 1 else ""
    models = list({_model_description(row.cell.model): None for row in rows})
    seeds = origin.get("seeds") or plan.settings.seeds
    images = f"{len(plan.samples)} per cell"
    if len(seeds) > 1:
        images += f", {len(seeds)} seeds"
    return [
        ("Model", "; ".join(models)),
        ("Method", f"{method or 'none'}, {len(methods)} setting{plural}{_off_note(methods)}"),
        ("Images", f"{images}, prompts of {_prompt_set(plan)}"),
        ("Device", device(origin)),
    ]


def _method_name(cell: Cell, dense: str) -> str:
    """Return the series of a cell, without the model's name that precedes it if several are swept."""
    return cell.series.removeprefix(dense.removesuffix("dense")).strip()


def _off_note(cells: Sequence[Cell]) -> str:
    off = sum(cell.off for cell in cells)
    return f", {off} of them switched off" if off else ""


def _model_description(node: Mapping[str, Any]) -> str:
    name = Path(str(node.get("path"))).name or str(node.get("family", ""))
    weights = ", random weights" if node.get("weights") == "random" else ""
    size = f"{node.get('width')} × {node.get('height')}"
    steps = f", {node['steps']} steps" if node.get("steps") else ""
    guidance = f", guidance {node['guidance']:g}" if node.get("guidance") else ""
    fitted = "".join(f", {key} {node[key]}" for key, plain in FITTED.items() if node.get(key, plain) != plain)
    return f"{name}{weights}, {size}{steps}{guidance}, {node.get('dtype', '')}".rstrip(", ") + fitted


def _prompt_set(plan: Plan) -> str:
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
    """The provenance section of the page.

    packages: (name, version); those that affect results come first.
    rescored: command and commit of a later rescoring, if any.
    text: everything above as text to copy, with the first packages only.
    """

    command: str
    facts: list[tuple[str, str]]
    packages: list[tuple[str, str]]
    rescored: list[tuple[str, str]]
    text: str

    @property
    def first(self) -> list[tuple[str, str]]:
        return self.packages[:SHOWN_PACKAGES]

    @property
    def rest(self) -> list[tuple[str, str]]:
        return self.packages[SHOWN_PACKAGES:]


def origins(plan: Plan, origin: Mapping[str, Any]) -> Origins:
    prompts = origin.get("prompts") or {}
    count = prompts.get("n", len(plan.samples))
    facts = [
        ("Commit", _commit(origin)),
        ("Device", device(origin)),
        ("Python", str(origin.get("python") or "not recorded")),
        ("System", str(origin.get("system") or "not recorded")),
        ("Seeds", ", ".join(map(str, origin.get("seeds") or plan.settings.seeds))),
        ("Prompts", f"{count} of {_prompt_set(plan)}, drawn {prompts.get('drawn', '–')}"),
        ("Batch", str(plan.settings.batch)),
    ]
    command = str(origin.get("command") or "not recorded")
    rescore = origin.get("rescored") or {}
    rescored = [("Command", str(rescore.get("command", ""))), ("Commit", _commit(rescore))] if rescore else []
    packages = [(str(k), str(v)) for k, v in (origin.get("packages") or {}).items()]
    lines = [("Command", command), *facts, *((f"Rescored, {k.lower()}", v) for k, v in rescored)]
    lines.append(("Packages", ", ".join(f"{k} {v}" for k, v in packages[:SHOWN_PACKAGES])))
    return Origins(command, facts, packages, rescored, "\n".join(f"{k}: {v}" for k, v in lines))


def _commit(origin: Mapping[str, Any]) -> str:
    commit, dirty = origin.get("commit"), origin.get("dirty")
    if not commit:
        return "not recorded: made outside a checkout"
    return f"{commit}{', with changes that are not committed' if dirty else ', clean'}"


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


def failures(plan: Plan, store: Store, rows: Sequence[Row]) -> list[Failure]:
    """Return all recorded failures in the order of the table, and those found in the rows, such as no-ops."""
    found = []
    for row in rows:
        noted = store.samples(row.cell.id).failures
        made, complete = f"{row.n} of {row.planned}", row.n == row.planned
        found += [
            Failure(
                row.cell.label,
                visible(f"{f.type}: {f.message}"),
                _traceback(f.traceback),
                f.time,
                made,
                complete,
            )
            for f in noted
        ]
        if row.failure and (complete or not noted):
            found.append(Failure(row.cell.label, visible(row.failure), "", "", made, False))
    return found


def _traceback(text: str) -> str:
    """Return the end of a traceback, which names the error, with control characters removed."""
    lines = text[-MAX_TRACEBACK:].splitlines()
    return "\n".join(visible(line) for line in lines)

"""report.html: a study in one file that opens from disk, without network or server.

The results are collected as plain data, rendered into a template once, and drawn by the inlined scripts in
`page/`. Text, table and a figure are visible without scripts, too.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.files import write
from fovea.study.plan.cells import FITTED, Cell
from fovea.study.plan.plan import Plan
from fovea.study.report.drawing import drawings, timings
from fovea.study.report.page_data import collected
from fovea.study.report.table import Entry, Table, visible
from fovea.study.report.verdict_text import cautions, verdict
from fovea.study.store import Store

HERE = Path(__file__).parent / "page"
STYLES = ("page.css", "table.css", "controls.css", "plot.css", "images.css", "narrow.css")
SCRIPTS = (  # each may use the ones before it
    *("page.js", "table.js", "plot.js"),
    *("pixels.js", "images.js", "maps.js", "copy.js"),
)
# in this order, before the figures
FIRST_LISTED = ("table", "contrasts", "published", "samples", "hypervolume", "traces", "provenance")
SUFFIXES = (".csv", ".tex", ".md", ".parquet", ".json", ".svg", ".png")
SHOWN_PACKAGES = 8  # packages shown before the others are unfolded; those that affect results come first
MAX_TRACEBACK = 20_000  # characters of a traceback that are shown
ESCAPES = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}


def page(
    plan: Plan,
    store: Store,
    rows: Sequence[Row],
    table: Table,
    origin: Mapping[str, Any],
    published: Table | None = None,
    contrasts: Table | None = None,
) -> None:
    """Write report.html, the last file of a study, as it links to the others.

    origin: the study's provenance.
    published: table of a paper's results next to the measured ones.
    contrasts: table of paired comparisons of cells.
    """
    style, script = (
        "\n".join((HERE / name).read_text("utf-8") for name in names) for names in (STYLES, SCRIPTS)
    )
    data = collected(plan, store, rows, table)
    sections = ("contrasts", "Pairs", contrasts), ("published", "Published", published)
    others = [(anchor, name, shown) for anchor, name, shown in sections if shown]
    text = _template().render(
        head=head(plan, rows, origin),
        verdict=verdict(plan, rows),
        cautions=cautions(rows),
        table=table,
        groups=groups(table),
        number=number,
        others=others,
        data=data,
        json=escaped(data),
        failures=failures(plan, store, rows),
        origins=origins(plan, origin),
        files=_files_by_name(store.folder),
        drawings=(plots := drawings(rows)),
        timings=timings(rows, store),
        figure="" if plots else _png_data_uri(store.folder / "pareto.png"),
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
    )
    write(store.folder / "report.html", text)


def groups(table: Table) -> list[tuple[str, int]]:
    """Return the headings above adjacent columns, and how many columns each spans."""
    return [(name, len(list(columns))) for name, columns in groupby(table.shown, lambda c: c.group)]


def number(entry: Entry) -> float | None:
    """Return the number that an entry is sorted by; None is sorted last."""
    value = entry.value
    if isinstance(value, str) or value is None:
        return None
    return math.copysign(1e308, value) if math.isinf(value) else float(value)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html")


def escaped(data: Any) -> Markup:
    """Return JSON that is safe inside a script element, with <, > and & escaped."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Return a content security policy that forbids requests and all scripts and styles but these two."""
    allowed = {"style-src": style, "script-src": script}
    hashes = (f"{rule} 'sha256-{_hash(text)}'" for rule, text in allowed.items())
    return "; ".join(
        ["default-src 'none'", "img-src data:", *hashes, "base-uri 'none'", "form-action 'none'"]
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _files_by_name(folder: Path) -> dict[str, list[str]]:
    """Return the suffixes of the report's files by name, tables first."""
    found: dict[str, list[str]] = {name: [] for name in FIRST_LISTED}
    for suffix in SUFFIXES:
        for file in sorted(folder.glob(f"[!.]*{suffix}")):
            found.setdefault(file.stem, []).append(suffix)
    return {name: suffixes for name, suffixes in found.items() if suffixes}


def _png_data_uri(path: Path) -> str:
    if not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Head:
    """The head of the page: the study's name, and facts as (name, value)."""

    name: str
    facts: list[tuple[str, str]]


def head(plan: Plan, rows: Sequence[Row], origin: Mapping[str, Any]) -> Head:
    """Return the study's name, and its models, methods, images and device."""
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
    facts = [
        ("Model", "; ".join(models)),
        ("Method", f"{method or 'none'}, {len(methods)} setting{plural}{_off_note(methods)}"),
        ("Images", f"{images}, prompts of {_prompt_set(plan)}"),
        ("Device", device(origin)),
    ]
    return Head(plan.name, facts)


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

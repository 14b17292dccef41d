"""report.html: a study in one file that opens from the disk, with no network and no server.

What is there is collected as plain data, put once into a template, and drawn by the scripts beside it, which
are inlined. Text, table and a figure are there without scripts too."""

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
SCRIPTS = (  # each may use those before it
    *("page.js", "table.js", "plot.js"),
    *("pixels.js", "images.js", "maps.js", "copy.js"),
)
FIRST_LISTED = (
    "table",
    "contrasts",
    "published",
    "samples",
    "hypervolume",
    "traces",
    "provenance",
)  # then the figures
FORMS = (".csv", ".tex", ".md", ".parquet", ".json", ".svg", ".png")
FIRST = 8  # packages that touch results, shown before the rest unfolds
LONG = 20_000  # characters that are shown of a traceback
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
    """Writes report.html, last of a study's files, which it links to. origin: the study's provenance.
    published: a paper's results beside the measured ones; contrasts: cells against each other."""
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
        files=_there(store.folder),
        drawings=(plots := drawings(rows)),
        timings=timings(rows, store),
        figure="" if plots else _figure(store.folder / "pareto.png"),
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
    )
    write(store.folder / "report.html", text)


def groups(table: Table) -> list[tuple[str, int]]:
    """Neighbours under one heading, and how many they are."""
    return [(name, len(list(columns))) for name, columns in groupby(table.shown, lambda c: c.group)]


def number(entry: Entry) -> float | None:
    """What a place is sorted by; None, always last, where there is no number."""
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
    """JSON that nothing in it can end: no tag, no entity, no line that a script would not take."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def policy(style: str, script: str) -> str:
    """Nothing is fetched, and no script or style runs but these two, whatever a prompt may hold."""
    allowed = {"style-src": style, "script-src": script}
    hashes = (f"{rule} 'sha256-{_hash(text)}'" for rule, text in allowed.items())
    return "; ".join(
        ["default-src 'none'", "img-src data:", *hashes, "base-uri 'none'", "form-action 'none'"]
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _there(folder: Path) -> dict[str, list[str]]:
    """Name to the endings that there are of it; tables first."""
    found: dict[str, list[str]] = {name: [] for name in FIRST_LISTED}
    for ending in FORMS:
        for file in sorted(folder.glob(f"[!.]*{ending}")):
            found.setdefault(file.stem, []).append(ending)
    return {name: endings for name, endings in found.items() if endings}


def _figure(path: Path) -> str:
    """As it is, since it is small."""
    if not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


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

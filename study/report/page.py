"""report.html: a study in one file that opens from the disk, with no network and no server.

What is there is collected as plain data, put once into a template, and drawn by the scripts beside it, which
are inlined. Text, table and a figure are there without scripts too."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.files import write
from fovea.study.plan.plan import Plan
from fovea.study.report.drawing import drawings, timings
from fovea.study.report.page_data import collected
from fovea.study.report.page_facts import failures, head, origins
from fovea.study.report.table import Entry, Table
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

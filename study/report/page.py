"""report.html: a study in one file that opens from disk, without network or server.

The results are collected as plain data, rendered into a template once, and drawn by the inlined scripts in
`page/`. Text, table and a figure are visible without scripts, too.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.files import write
from fovea.study.plan.plan import Plan
from fovea.study.report.drawing import drawings, timings
from fovea.study.report.page_data import collected, data_uri
from fovea.study.report.page_facts import facts, failures, origins
from fovea.study.report.table import Entry, Table
from fovea.study.report.verdict_text import cautions, verdict
from fovea.study.store import Store

HERE = Path(__file__).parent / "page"
STYLES = ("page.css", "table.css", "controls.css", "plot.css", "images.css", "narrow.css")
# each may use the ones before it
SCRIPTS = ("page.js", "table.js", "plot.js", "pixels.js", "images.js", "maps.js", "copy.js")
# in this order, before the figures
FIRST_LISTED = ("table", "contrasts", "published", "samples", "hypervolume", "traces", "provenance")
SUFFIXES = (".csv", ".tex", ".md", ".parquet", ".json", ".svg", ".png")
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
    style, script = _joined(STYLES), _joined(SCRIPTS)
    data, plots = collected(plan, store, rows, table), drawings(rows)
    sections = ("contrasts", "Pairs", contrasts), ("published", "Published", published)
    others = [(anchor, name, shown) for anchor, name, shown in sections if shown]
    text = _template().render(
        title=plan.name,
        facts=facts(plan, rows, origin),
        verdict=verdict(plan, rows),
        cautions=cautions(rows),
        table=table,
        groups=groups(table),
        number=number,
        others=others,
        data=data,
        json=escaped(data),
        failures=failures(store, rows),
        origins=origins(plan, origin),
        files=_files_by_name(store.folder),
        drawings=plots,
        timings=timings(rows, store),
        figure="" if plots else data_uri("png", (store.folder / "pareto.png").read_bytes()),
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
    )
    write(store.folder / "report.html", text)


def _joined(names: Iterable[str]) -> str:
    return "\n".join((HERE / name).read_text("utf-8") for name in names)


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

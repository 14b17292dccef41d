"""What a paper prints, beside what was measured: a table of its own, and a figure. Printed values enter
nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from fovea.study.analysis.paper import TITLE
from fovea.study.analysis.published import NO_CELL, Beside, Table, beside
from fovea.study.analysis.row import Row
from fovea.study.plan.plan import Plan
from fovea.study.report import terminal
from fovea.study.report.comparison import comparison
from fovea.study.report.table import RANDOM
from fovea.study.report.table import figure as digits
from fovea.study.report.typeset import latex, markdown
from fovea.study.store import write


def table(plan: Plan, rows: Sequence[Row]) -> Table | None:
    """None where the study re-runs no paper's table."""
    node = plan.config.get("paper")
    return beside(node, plan.config["scale"], rows) if node else None


def forms(plan: Plan, table: Table, folder: Path) -> None:
    """printed.md, .csv, .tex, and printed.png and .svg where anything was measured."""
    body, said = text(plan, table)
    write(folder / "printed.md", markdown(body, said))
    write(folder / "printed.tex", latex(body, said, RANDOM if plan.random_weights else None))
    write(folder / "printed.csv", pd.DataFrame(records(table)).to_csv(index=False))
    comparison(plan, table, folder)


def text(plan: Plan, table: Table | None) -> tuple[list[list[str]], list[str]]:
    """The table's lines, and what a reader must know of it; neither without a paper."""
    return (lines(table), notes(plan, table)) if table else ([], [])


def show(plan: Plan, table: Table, console: Console) -> None:
    terminal.told(*text(plan, table), console, TITLE)


def lines(table: Table) -> list[list[str]]:
    """The header and the body as text: three columns for each of the paper's that anything stands beside."""
    met = {name for name in table.paper.columns if _any(table, name)}
    head = ["cell", *(title for name in table.paper.columns for title in _titles(name, name in met))]
    body = []
    for label, values in table.rows.items():
        line = [f"{label} ‡" if label in table.notes else label]
        for name in table.paper.columns:
            line += _texts(values.get(name), name in met)
        body.append(line)
    return [head, *body]


def _any(table: Table, name: str) -> bool:
    return any(name in values and values[name].measured for values in table.rows.values())


def _titles(name: str, met: bool) -> list[str]:
    return [f"{name}, printed", "measured", "Δ"] if met else [f"{name}, printed"]


def _texts(value: Beside | None, met: bool) -> list[str]:
    if value is None:
        return ["–", "–", "–"] if met else ["–"]
    if not met:
        return [value.text]
    m, by = value.measured, value.difference
    if m is None:
        return [value.text, "–", "–"]
    bounds = f" [{digits(m.low, m.value)}, {digits(m.high, m.value)}]" if m.low < m.high else ""
    within = {True: " in", False: " out", None: ""}[value.inside]
    beside = "–" if by is None else f"{'+' if by >= 0 else ''}{digits(by, m.value)}{within}"
    return [value.text, f"{digits(m.value)}{bounds}", beside]


def notes(plan: Plan, table: Table) -> list[str]:
    """Whose the values are, what in and out mean, what the paper did, and how this run differs."""
    out = [RANDOM] if plan.random_weights else []
    out.append(
        f"Printed: {table.paper.source}. These are their authors' own, from other machines: they enter no "
        "ranking, front or mean here."
    )
    models = dict.fromkeys(Path(str(cell.model["path"])).name for cell in plan.cells)
    out.append(f"Measured: {', '.join(models)}; {len(plan.samples)} images a cell.")
    if plan.config["scale"]["models"]:
        out.append(
            f"scale={plan.config['scale']['name']}: embedded models stand in for the paper's. This shows "
            "that the experiment runs; agreement with what is printed would be chance, and their times and "
            "sizes are not compared."
        )
    if any(v.inside is not None for values in table.rows.values() for v in values.values()):
        out.append(
            "in, out: whether the printed value, with what its rounding leaves open, meets the measured "
            "interval, where that is of 95 % or more (of times: from six repetitions on). Δ: measured less "
            "printed."
        )
    out += [f"{name}: {why}." for name, why in _missing(table).items()]
    out += [f"‡ {label}: {note}." for label, note in table.notes.items()]
    return [*out, *(f"{fact}." for fact in (*table.paper.remarks, *table.paper.protocol))]


def _missing(table: Table) -> dict[str, str]:
    """Columns beside which nothing stands, and why."""
    found: dict[str, str] = {}
    for name in table.paper.columns:
        whys = [values[name].why for values in table.rows.values() if name in values]
        if whys and not _any(table, name):
            known = [why for why in whys if why]
            own = [why for why in known if why != NO_CELL and why not in table.notes.values()]
            found[name] = max(own or known, key=known.count)
    return found


def records(table: Table) -> list[dict[str, Any]]:
    """One flat record per printed value."""
    return [
        {
            "cell": label,
            "column": name,
            "of": table.paper.columns[name].of,
            "printed": v.text,
            "printed_low": v.low,
            "printed_high": v.high,
            "measured": v.measured and v.measured.value,
            "measured_low": v.measured and v.measured.low,
            "measured_high": v.measured and v.measured.high,
            "difference": v.difference,
            "inside": v.inside,
            "not_measured": v.why,
            "source": table.paper.source,
        }
        for label, values in table.rows.items()
        for name, v in values.items()
    ]

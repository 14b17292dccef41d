"""What a paper prints, beside what was measured: a table of its own, and a figure. Printed values enter
nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console

from study import terminal
from study.paper import Beside, Table, beside
from study.plan import Plan
from study.row import Row
from study.store import write
from study.style import COLOURS, FAINT, INK, MUTED, WARNING, figure, save
from study.table import RANDOM
from study.table import figure as digits
from study.typeset import latex, markdown

PRINTED: dict[str, Any] = {
    "marker": "D",
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": COLOURS[1],
    "markersize": 4.5,
}
TITLE = "Printed by the paper, beside what was measured"


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
    panels = _panels(table)
    if panels:
        _draw(plan, table, panels, folder)


def text(plan: Plan, table: Table | None) -> tuple[list[list[str]], list[str]]:
    """The table's lines, and what a reader must know of it; neither without a paper."""
    return (lines(table), notes(plan, table)) if table else ([], [])


def show(plan: Plan, table: Table, console: Console) -> None:
    terminal.say(f"\n{TITLE}", console, "bold")
    body, said = text(plan, table)
    terminal.show(body, console)
    for note in said:
        terminal.say(note, console, "dim")


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
    m = value.measured
    if m is None or value.difference is None:
        return [value.text, "–", "–"]
    bounds = f" [{digits(m.low, m.value)}, {digits(m.high, m.value)}]" if m.low < m.high else ""
    sign = "+" if value.difference >= 0 else ""
    within = {True: " in", False: " out", None: ""}[value.inside]
    return [
        value.text,
        f"{digits(m.value)}{bounds}",
        f"{sign}{digits(value.difference, m.value)}{within}",
    ]


def notes(plan: Plan, table: Table) -> list[str]:
    """Whose the values are, what in and out mean, what the paper did, and how this run differs."""
    out = [RANDOM] if plan.random_weights else []
    out.append(
        f"Printed: {table.paper.source}. These are their authors' own, from other machines: they enter no "
        "ranking, front or mean here."
    )
    if plan.config["scale"]["models"]:
        out.append(
            f"scale={plan.config['scale']['name']}: embedded models stand in for the paper's. This shows "
            "that the experiment runs; agreement with what is printed would be chance."
        )
    if any(v.inside is not None for values in table.rows.values() for v in values.values()):
        out.append(
            "in, out: whether the printed value, with what its rounding leaves open, meets the measured 95 % "
            "interval. Δ: measured less printed."
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
            found[name] = max({why for why in whys if why}, key=whys.count)
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


def _panels(table: Table) -> dict[str, Mapping[str, Beside]]:
    """Column to the values by row that something stands beside."""
    found = {}
    for name in table.paper.columns:
        values = {r: v[name] for r, v in table.rows.items() if name in v and v[name].measured is not None}
        if values:
            found[name] = values
    return found


def _draw(plan: Plan, table: Table, panels: Mapping[str, Mapping[str, Beside]], folder: Path) -> None:
    rows = [row for row in table.rows if any(row in values for values in panels.values())]
    with figure(1.9 + 1.9 * len(panels), 0.9 + 0.2 * len(rows), plan.random_weights) as made:
        axes = made.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (name, values) in zip(axes, panels.items(), strict=True):
            _panel(axis, name, rows, values)
        axes[0].set_yticks(range(len(rows)), rows, size=7.5)
        axes[0].invert_yaxis()
        made.legend(
            handles=[
                Line2D([], [], color=COLOURS[0], marker="o", markersize=4, label="measured, 95 %"),
                Line2D(
                    [], [], color=COLOURS[1], marker="D", markersize=4.5, ls="", mfc="none", label="printed"
                ),
            ],
            loc="outside lower center",
            ncols=2,
            fontsize=7.5,
            frameon=False,
            title=f"printed: {table.paper.source}",
        )
        if plan.config["scale"]["models"]:
            made.text(0.01, 0.005, "embedded models stand in", size=7, color=WARNING)
        save(made, folder / "printed", "png", "svg")


def _panel(axis: Axes, name: str, rows: list[str], values: Mapping[str, Beside]) -> None:
    for row, value in values.items():
        y, m = rows.index(row), value.measured
        if m is None:
            continue
        axis.plot([m.low, m.high], [y, y], color=COLOURS[0], lw=1.4, solid_capstyle="butt")
        axis.plot(m.value, y, "o", color=COLOURS[0], ms=4)
        axis.plot(value.printed, y, **PRINTED)
    axis.set_title(name, size=8.5, color=INK)
    axis.set_yticks(np.arange(len(rows)))
    axis.grid(axis="y", color=FAINT, lw=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7, colors=MUTED)

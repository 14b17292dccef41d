"""A paper's published results next to the measured ones, as a table and a figure used nowhere else."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fovea.study.analysis.published import NO_CELL, TITLE, Results, Value, published
from fovea.study.analysis.row import Row
from fovea.study.files import remove
from fovea.study.plan.plan import Plan
from fovea.study.report import formats
from fovea.study.report.notes import RANDOM
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, WARNING, figure
from fovea.study.report.style import save as save_figure
from fovea.study.report.table import Column, Entry, Table, bounded, visible

Source = tuple[Column, Callable[[str], Entry]]  # a column, and its entry for a row label
PUBLISHED_MARKER: dict[str, Any] = {
    "marker": "D",
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": COLOURS[1],
    "markersize": 4.5,
}


def save(plan: Plan, rows: Sequence[Row], folder: Path) -> Table | None:
    """Write published.md, .csv, .tex and .parquet, and published.png and .svg if anything can be compared.

    Return the table, or None, without writing, if the study reproduces no paper's table.
    """
    node = plan.config.get("paper")
    if not node:
        return None
    found = published(node, plan.config["scale"], rows)
    table = published_table(plan, found)
    formats.save(table, folder / "published")
    comparison(plan, found, folder)
    return table


def published_table(plan: Plan, found: Results) -> Table:
    """Return a table with published, measured and difference for each column of the paper.

    Columns without any measured value show the published one only.
    """
    label = Column("cell", "cell", left=True)
    sources: list[Source] = [(label, lambda row: Entry(row, mark=" ‡" if row in found.notes else ""))]
    for name in found.paper.columns:
        sources += _sources(found, name)
    rows = [{column.key: of(row) for column, of in sources} for row in found.rows]
    warning = RANDOM if plan.random_weights else ""
    return Table([column for column, _ in sources], rows, notes(plan, found), TITLE, warning)


def _sources(found: Results, name: str) -> Iterable[Source]:
    met = _is_measured(found, name)

    def of(row: str) -> Value | None:
        return found.rows[row].get(name)

    def data(key: str, value: Callable[[Value], Any]) -> Source:
        return Column(f"{name}_{key}"), lambda row: Entry((v := of(row)) and value(v))

    yield Column(name, f"{name}, published", "interval"), lambda row: _published(of(row))
    measured = Column(f"{name}_measured", "measured" if met else "", "interval")
    yield measured, lambda row: bounded((v := of(row)) and v.measured)
    difference = Column(f"{name}_difference", "Δ" if met else "", signed=True)
    yield difference, lambda row: _difference(of(row), difference)
    yield data("inside", lambda v: v.inside)
    yield data("not_measured", lambda v: v.why)


def _published(value: Value | None) -> Entry:
    """Show the published value with the paper's digits."""
    return Entry() if value is None else Entry(value.published, value.low, value.high, text=value.text)


def _difference(value: Value | None, column: Column) -> Entry:
    """Show the difference with the decimals of the measured value, and whether the two agree (in, out)."""
    if value is None or value.difference is None or value.measured is None:
        return Entry()
    within = {True: " in", False: " out", None: ""}[value.inside]
    return Entry(value.difference, text=f"{column.number(value.difference, value.measured.value)}{within}")


def _is_measured(found: Results, name: str) -> bool:
    return any(name in values and values[name].measured for values in found.rows.values())


def notes(plan: Plan, found: Results) -> list[str]:
    """Return notes on the source of the values, the meaning of in and out, and differences in protocol."""
    models = dict.fromkeys(Path(str(cell.model["path"])).name for cell in plan.cells)
    out = [
        f"Published: {found.paper.source}. These are their authors' own, from other machines: they enter no "
        "ranking, front or mean here.",
        f"Measured: {', '.join(models)}; {len(plan.samples)} images a cell.",
    ]
    if plan.config["scale"]["models"]:
        out.append(
            f"scale={plan.config['scale']['name']}: embedded models stand in for the paper's. This shows "
            "that the experiment runs; agreement with what is published would be chance, and their times and "
            "sizes are not compared."
        )
    for text in dict.fromkeys(found.unlike.values()):
        out.append(
            f"Not the paper's model as it ran it: {text}. Agreement with what is published would be chance, "
            "and times and sizes are not compared."
        )
    uneven = [n for n in found.paper.columns if any(n in v and v[n].uneven for v in found.rows.values())]
    if uneven:
        out.append(
            f"{', '.join(uneven)}: not compared, as such a score depends on the number of images, "
            f"{found.paper.images:,} in the paper."
        )
    if any(v.inside is not None for values in found.rows.values() for v in values.values()):
        out.append(
            "in, out: whether the published value, with what its rounding leaves open, meets the measured "
            "interval, where that is of 95 % or more (of times: from six repetitions on). Δ: measured less "
            "published."
        )
    out += [f"{name}: {why}." for name, why in _unmeasured_columns(found).items()]
    out += [f"‡ {label}: {note}." for label, note in found.notes.items()]
    return [
        visible(text) for text in (*out, *(f"{f}." for f in (*found.paper.remarks, *found.paper.protocol)))
    ]


def _unmeasured_columns(found: Results) -> dict[str, str]:
    """Return the columns without any measured value, and the most frequent reason for each."""
    missing: dict[str, str] = {}
    for name in found.paper.columns:
        whys = [values[name].why for values in found.rows.values() if name in values]
        if whys and not _is_measured(found, name):
            known = [why for why in whys if why]
            of_column = [why for why in known if why != NO_CELL and why not in found.notes.values()]
            missing[name] = max(of_column or known, key=known.count)
    return missing


def comparison(plan: Plan, found: Results, folder: Path) -> None:
    """Write published.png and .svg with a panel per column: measured values with intervals, published hollow.

    Without comparable values, files of an earlier report are removed.
    """
    panels = _panels(found)
    if not panels:
        remove(folder / "published", ".png", ".svg")
        return
    rows = [row for row in found.rows if any(row in values for values in panels.values())]
    with figure(1.9 + 1.9 * len(panels), 0.9 + 0.2 * len(rows), plan.random_weights) as made:
        axes = made.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (name, values) in zip(axes, panels.items(), strict=True):
            _panel(axis, name, rows, values)
        axes[0].set_yticks(range(len(rows)), rows, size=7.5)
        axes[0].invert_yaxis()
        measured_marker = {"color": COLOURS[0], "marker": "o", "markersize": 4}
        made.legend(
            handles=[
                Line2D([], [], label="measured, with its interval", **measured_marker),
                Line2D([], [], label="published", **PUBLISHED_MARKER),
            ],
            loc="outside lower center",
            ncols=2,
            fontsize=7.5,
            frameon=False,
            title=f"published: {found.paper.source}",
        )
        scaled = plan.config["scale"]["models"]
        if scaled or found.unlike:
            what = "embedded models stand in" if scaled else "not the paper's model as it ran it"
            made.text(0.01, 0.005, what, size=7, color=WARNING)
        save_figure(made, folder / "published", "png", "svg")


def _panels(found: Results) -> dict[str, Mapping[str, Value]]:
    """Return the measured values that can be compared with the published ones, by column and row."""
    panels = {
        name: {r: v[name] for r, v in found.rows.items() if name in v and v[name].difference is not None}
        for name in found.paper.columns
    }
    return {name: values for name, values in panels.items() if values}


def _panel(axis: Axes, name: str, rows: list[str], values: Mapping[str, Value]) -> None:
    for row, value in values.items():
        y, m = rows.index(row), value.measured
        if m is None:
            continue
        axis.plot([m.low, m.high], [y, y], color=COLOURS[0], lw=1.4, solid_capstyle="butt")
        axis.plot(m.value, y, "o", color=COLOURS[0], ms=4)
        axis.plot(value.published, y, **PUBLISHED_MARKER)
    axis.set_title(name, size=8.5, color=INK)
    axis.grid(axis="y", color=FAINT, lw=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7, colors=MUTED)

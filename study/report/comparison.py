"""A paper's values and the measured ones in one figure: the only one that printed values are in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fovea.study.analysis.published import Beside, Table
from fovea.study.plan.plan import Plan
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, WARNING, figure, save

PRINTED: dict[str, Any] = {
    "marker": "D",
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": COLOURS[1],
    "markersize": 4.5,
}


def comparison(plan: Plan, table: Table, folder: Path) -> None:
    """printed.png and .svg: a panel per column, what was measured with its interval, what is printed hollow;
    nothing where nothing was measured."""
    panels = _panels(table)
    if not panels:
        for kind in ("png", "svg"):  # of an earlier report
            (folder / f"printed.{kind}").unlink(missing_ok=True)
        return
    rows = [row for row in table.rows if any(row in values for values in panels.values())]
    with figure(1.9 + 1.9 * len(panels), 0.9 + 0.2 * len(rows), plan.random_weights) as made:
        axes = made.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (name, values) in zip(axes, panels.items(), strict=True):
            _panel(axis, name, rows, values)
        axes[0].set_yticks(range(len(rows)), rows, size=7.5)
        axes[0].invert_yaxis()
        made.legend(
            handles=[
                Line2D(
                    [], [], color=COLOURS[0], marker="o", markersize=4, label="measured, with its interval"
                ),
                Line2D([], [], label="printed", **PRINTED),
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


def _panels(table: Table) -> dict[str, Mapping[str, Beside]]:
    """Column to the values by row that something stands beside."""
    found = {}
    for name in table.paper.columns:
        values = {r: v[name] for r, v in table.rows.items() if name in v and v[name].measured is not None}
        if values:
            found[name] = values
    return found


def _panel(axis: Axes, name: str, rows: list[str], values: Mapping[str, Beside]) -> None:
    for row, value in values.items():
        y, m = rows.index(row), value.measured
        if m is None:
            continue
        axis.plot([m.low, m.high], [y, y], color=COLOURS[0], lw=1.4, solid_capstyle="butt")
        axis.plot(m.value, y, "o", color=COLOURS[0], ms=4)
        axis.plot(value.printed, y, **PRINTED)
    axis.set_title(name, size=8.5, color=INK)
    axis.grid(axis="y", color=FAINT, lw=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7, colors=MUTED)

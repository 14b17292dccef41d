"""Which cells belong together in a plot, and what they look like."""

from collections.abc import Sequence
from typing import NamedTuple

from fovea.study.analysis.row import Row
from fovea.study.report.style import COLOURS, MUTED

MARKERS = "osD^v"  # one more each time the colours are through


class Curve(NamedTuple):
    """joined: its cells differ in one key alone, and a line through them, each with its value, says so."""

    name: str
    rows: list[Row]
    colour: str
    marker: str = "o"
    joined: bool = True


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Step reduction of each baseline, and the methods. A swept key makes curves; cells written out, a cloud
    per method."""
    steps = _written_out([row for row in rows if row.cell.role == "steps"])
    methods = [row for row in rows if row.cell.role == "method"]
    alike = len({frozenset(row.cell.axes) for row in methods}) <= 1
    named = _swept(methods) if alike else _written_out(methods)
    found = [Curve(name, group, MUTED) for name, group in steps.items()]
    for i, (name, group) in enumerate(named.items()):
        turn, colour = divmod(i, len(COLOURS))
        found.append(Curve(name, group, COLOURS[colour], MARKERS[turn % len(MARKERS)], alike))
    return found


def _swept(methods: Sequence[Row]) -> dict[str, list[Row]]:
    """Cells that differ only in the key with most values make one curve."""
    values = {
        key: {str(row.cell.axes.get(key)) for row in methods} for row in methods for key in row.cell.axes
    }
    swept = max(values, key=lambda key: len(values[key]), default="")
    found: dict[str, list[Row]] = {}
    for row in methods:
        fixed = [f"{k.split('.')[-1]}={v}" for k, v in row.cell.axes.items() if k not in (swept, "method")]
        name = " ".join([row.cell.series, *fixed])
        unit = f" ({swept.split('.')[-1]})" if swept else ""
        found.setdefault(f"{name}{unit}", []).append(row)
    return found


def _written_out(methods: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in methods:
        found.setdefault(row.cell.series, []).append(row)
    return found


def mark(row: Row) -> str:
    """What tells a point from the others of its curve: a ratio, a number of steps."""
    return str(list(row.cell.axes.values())[-1]) if row.cell.axes else ""

"""Figures as parts of a page: SVG without styles of its own, which the page forbids, in its colours."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fovea.study.analysis.row import Cost, Row
from fovea.study.analysis.speed import batches, contended, throttled
from fovea.study.report.pareto import Panel, bounds, described, draw, size
from fovea.study.report.style import (
    COLOURS,
    FAINT,
    INK,
    MUTED,
    WARNING,
    bar_colour,
    drawable,
    drawn,
    figure,
    lay_out,
)
from fovea.study.report.table import visible
from fovea.study.store import Store

THEME = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", WARNING.lower(): "--warning", "#ffffff": "--paper"}
THEME |= {colour.lower(): f"--c{i}" for i, colour in enumerate(COLOURS)}
FONT = re.compile(r"(?:[\w-]+ )*?([\d.]+)px ")
DROPPED = {"metadata", "style", "title"}
DOTS = 100  # of a cell in a plot of times: more are a blot
MARKS: dict[str, dict[str, Any]] = {  # by what was amiss with a timed call
    "": {"marker": "o", "alpha": 0.65},
    "shared": {"marker": "o", "markerfacecolor": "white"},
    "throttled": {"marker": "x", "color": WARNING},
}
AMISS = {
    "shared": "Hollow: the device was shared with others’ work.",
    "throttled": "Crosses: held down by heat or hardware, left out of the median.",
}


@dataclass(frozen=True)
class Drawing:
    """Of one score against one cost. notes: on what it cannot show."""

    name: str
    title: str
    cost: Cost
    svg: Markup
    notes: list[str]


def drawings(rows: Sequence[Row]) -> list[Drawing]:
    """Of every score against time and FLOPs, that of the study's own cost first."""
    own: Cost = rows[0].cost if rows else "time"
    costs: list[Cost] = [own, "flops" if own == "time" else "time"]
    found: list[Drawing] = []
    for cost in costs:
        by_score: dict[str, list[Panel]] = {}
        for panel in described(rows, cost):
            by_score.setdefault(panel.score.name, []).append(panel)
        for name, panels in by_score.items():
            svg = drawing(panels, f"d{len(found)}-")
            found.append(Drawing(name, panels[0].score.title, cost, svg, _notes(panels)))
    return found


def _notes(panels: Sequence[Panel]) -> list[str]:
    alike = ", ".join(visible(label) for panel in panels for label in panel.infinite)
    title = panels[0].score.title
    return [f"Every image is the dense one, and {title} infinite: {alike}."] if alike else []


def drawing(panels: Sequence[Panel], prefix: str) -> Markup:
    """The plot of these panels. prefix: of the ids in it, which are a page's own."""
    with figure(*size(panels)) as made:
        draw(made, panels)
        return inlined(made, prefix)


@dataclass(frozen=True)
class Timings:
    svg: Markup
    caption: str


def timings(rows: Sequence[Row], store: Store) -> Timings | None:
    """Every timed full batch as a dot, the median and its interval behind them: a line per cell. None where
    nothing was timed."""
    found = {row.cell.id: list(_calls(row, store)) for row in rows}
    timed = [row for row in rows if found[row.cell.id]]
    if not timed:
        return None
    with figure(9, 0.6 + 0.24 * len(timed)) as made:
        axis = made.subplots()
        for i, row in enumerate(timed):
            _times(axis, i, row, found[row.cell.id])
        axis.set_yticks(
            range(len(timed)), [shorten(drawable(r.cell.label), 44, placeholder="…") for r in timed]
        )
        axis.set_ylim(len(timed) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel("s per image")
        axis.grid(axis="x", color=FAINT, linewidth=0.5)
        svg = inlined(made, "t-", role="img", **{"aria-label": "Seconds per image, every repetition"})
    amiss = {mark for calls in found.values() for _, mark in calls}
    said = "Seconds per image of full batches; the line is the median, the band its interval."
    return Timings(svg, " ".join([said, *(text for mark, text in AMISS.items() if mark in amiss)]))


def _calls(row: Row, store: Store) -> Iterator[tuple[float, str]]:
    """Seconds per image, and what was amiss; of very many each so and so many, and all in which it was."""
    calls = batches(store.samples(row.cell.id).only(row.keys), valid=False).values()
    for i, call in enumerate(calls):
        mark = "throttled" if throttled(call) else "shared" if contended(call) else ""
        if mark or i % -(-len(calls) // DOTS) == 0:
            yield call.seconds / call.size, mark


def _times(axis: Axes, i: int, row: Row, calls: Sequence[tuple[float, str]]) -> None:
    colour = bar_colour(row.cell.role)
    if row.seconds is not None:
        value, low, high = bounds(row.seconds)
        axis.barh(i, high - low, 0.5, low, color=colour, alpha=0.16)
        axis.plot([value, value], [i - 0.36, i + 0.36], color=colour, linewidth=2)
    for mark, look in MARKS.items():
        own = [k for k, (_, amiss) in enumerate(calls) if amiss == mark]
        apart = [i + ((k * 7 + 2) % 5 - 2) * 0.07 for k in own]  # a little, the same every time
        shown = {"color": colour, "markersize": 4, "linestyle": "", **look}
        axis.plot([calls[k][0] for k in own], apart, **shown)


def inlined(made: Figure, prefix: str, **attributes: str) -> Markup:
    """A figure as a part of a page. prefix: of the ids in it; attributes: of the svg itself."""
    for part in (made, *made.axes):
        part.patch.set_visible(False)  # the page's own ground is behind it
    lay_out(made)
    root = ET.fromstring(drawn(made, "svg"))
    _own(root, prefix)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib.update(attributes)
    return Markup(ET.tostring(root, encoding="unicode"))


def _own(element: ET.Element, prefix: str) -> None:
    """Of an element and all in it: plain names, attributes for styles, ids of this drawing."""
    element.tag = element.tag.partition("}")[2]
    if name := element.attrib.pop("id", None):
        element.attrib |= _named(name, prefix)
    for rule in element.attrib.pop("style", "").split(";"):
        element.attrib |= _attribute(*(part.strip() for part in rule.partition(":")[::2]))
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.attrib.clear()
    for key, value in attributes.items():
        value = f"#{prefix}{value[1:]}" if key == "href" else value.replace("url(#", f"url(#{prefix}")
        element.attrib[key] = f"var({THEME[value.lower()]})" if value.lower() in THEME else value
    for child in list(element):
        if child.tag.partition("}")[2] in DROPPED:
            element.remove(child)
        else:
            _own(child, prefix)


def _named(name: str, prefix: str) -> dict[str, str]:
    """What a script looks for has a class; what the drawing itself refers to, an id."""
    if name == "front":
        return {"class": "front"}
    if name.startswith("cell-"):
        return {"class": "point", "data-cell": name.removeprefix("cell-")}
    return {"id": f"{prefix}{name}"}


def _attribute(name: str, value: str) -> dict[str, str]:
    if name == "font":
        found = FONT.match(value)
        return {"font-size": found[1]} if found else {}
    return {name: value} if name and name != "font-family" else {}

"""Figures inlined in the page: SVG in its colours, without the style attributes that its policy forbids."""

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
from fovea.study.report.panels import Panel, bounds, panels_of
from fovea.study.report.pareto import draw, size
from fovea.study.report.style import (
    COLOURS,
    FAINT,
    INK,
    MUTED,
    WARNING,
    bar_colour,
    drawable,
    figure,
    lay_out,
    rendered,
)
from fovea.study.report.table import visible
from fovea.study.store import Store

THEME = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", WARNING.lower(): "--warning", "#ffffff": "--paper"}
THEME |= {colour.lower(): f"--c{i}" for i, colour in enumerate(COLOURS)}
FONT = re.compile(r"(?:[\w-]+ )*?([\d.]+)px ")
DROPPED = {"metadata", "style", "title"}
MAX_DOTS = 100  # dots per cell in a plot of times, about; more would overlap
CALL_MARKERS: dict[str, dict[str, Any]] = {  # look of a timed call, by how it was disturbed
    "": {"marker": "o", "alpha": 0.65},
    "shared": {"marker": "o", "markerfacecolor": "white"},
    "throttled": {"marker": "x", "color": WARNING},
}
DISTURBANCES = {
    "shared": "Hollow: the device was shared with others’ work.",
    "throttled": "Crosses: held down by heat or hardware, left out of the median.",
}


@dataclass(frozen=True)
class Drawing:
    """A plot of one score against one cost. notes: on what it cannot show."""

    name: str
    title: str
    cost: Cost
    svg: Markup
    notes: list[str]


def drawings(rows: Sequence[Row]) -> list[Drawing]:
    """Plot every score against time and against FLOPs, the study's own cost first."""
    costs: list[Cost] = ["time", "flops"] if rows[0].cost == "time" else ["flops", "time"]
    found: list[Drawing] = []
    for cost in costs:
        by_score: dict[str, list[Panel]] = {}
        for panel in panels_of(rows, cost):
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
    """Draw panels as inline SVG. prefix: of its ids, which must be unique on the page."""
    with figure(*size(panels)) as made:
        draw(made, panels)
        return inlined(made, prefix)


@dataclass(frozen=True)
class Timings:
    svg: Markup
    caption: str


def timings(rows: Sequence[Row], store: Store) -> Timings | None:
    """Plot every timed full batch as a dot over the median and its interval, one line per cell.

    None if nothing was timed.
    """
    calls = {row.cell.id: list(_calls(row, store)) for row in rows}
    timed = [row for row in rows if calls[row.cell.id]]
    if not timed:
        return None
    with figure(9, 0.6 + 0.24 * len(timed)) as made:
        axis = made.subplots()
        for i, row in enumerate(timed):
            _times(axis, i, row, calls[row.cell.id])
        axis.set_yticks(
            range(len(timed)), [shorten(drawable(r.cell.label), 44, placeholder="…") for r in timed]
        )
        axis.set_ylim(len(timed) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel("s per image")
        axis.grid(axis="x", color=FAINT, linewidth=0.5)
        svg = inlined(made, "t-", role="img", **{"aria-label": "Seconds per image, every repetition"})
    marks = {mark for own in calls.values() for _, mark in own}
    caption = "Seconds per image of full batches; the line is the median, the band its interval."
    return Timings(svg, " ".join([caption, *(text for mark, text in DISTURBANCES.items() if mark in marks)]))


def _calls(row: Row, store: Store) -> Iterator[tuple[float, str]]:
    """Yield (seconds per image, disturbance) of the timed calls.

    Of more than `MAX_DOTS` calls the undisturbed ones are thinned out evenly.
    """
    calls = batches(store.samples(row.cell.id).only(row.keys), valid=False).values()
    for i, call in enumerate(calls):
        mark = "throttled" if throttled(call) else "shared" if contended(call) else ""
        if mark or i % -(-len(calls) // MAX_DOTS) == 0:
            yield call.seconds / call.size, mark


def _times(axis: Axes, i: int, row: Row, calls: Sequence[tuple[float, str]]) -> None:
    colour = bar_colour(row.cell.role)
    if row.seconds is not None:
        value, low, high = bounds(row.seconds)
        axis.barh(i, high - low, 0.5, low, color=colour, alpha=0.16)
        axis.plot([value, value], [i - 0.36, i + 0.36], color=colour, linewidth=2)
    for mark, look in CALL_MARKERS.items():
        places = [k for k, (_, disturbance) in enumerate(calls) if disturbance == mark]
        jittered = [i + ((k * 7 + 2) % 5 - 2) * 0.07 for k in places]  # deterministic
        style = {"color": colour, "markersize": 4, "linestyle": "", **look}
        axis.plot([calls[k][0] for k in places], jittered, **style)


def inlined(made: Figure, prefix: str, **attributes: str) -> Markup:
    """Render a figure as inline SVG. prefix: of its ids; attributes: of the svg element."""
    for part in (made, *made.axes):
        part.patch.set_visible(False)  # transparent: the page has a background
    lay_out(made)
    root = ET.fromstring(rendered(made, "svg"))
    _inline_element(root, prefix)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib.update(attributes)
    return Markup(ET.tostring(root, encoding="unicode"))


def _inline_element(element: ET.Element, prefix: str) -> None:
    """Adapt an element and its children in place.

    Namespaces are dropped, styles become attributes, ids get the prefix and colours become CSS variables.
    """
    element.tag = element.tag.partition("}")[2]
    if name := element.attrib.pop("id", None):
        element.attrib |= _id_attributes(name, prefix)
    for rule in element.attrib.pop("style", "").split(";"):
        element.attrib |= _style_attribute(*(part.strip() for part in rule.partition(":")[::2]))
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.attrib.clear()
    for key, value in attributes.items():
        value = f"#{prefix}{value[1:]}" if key == "href" else value.replace("url(#", f"url(#{prefix}")
        element.attrib[key] = f"var({THEME[value.lower()]})" if value.lower() in THEME else value
    for child in list(element):
        if child.tag.partition("}")[2] in DROPPED:
            element.remove(child)
        else:
            _inline_element(child, prefix)


def _id_attributes(name: str, prefix: str) -> dict[str, str]:
    """Return a class for elements that scripts look up, else a prefixed id for references in the drawing."""
    if name == "front":
        return {"class": "front"}
    if name.startswith("cell-"):
        return {"class": "point", "data-cell": name.removeprefix("cell-")}
    return {"id": f"{prefix}{name}"}


def _style_attribute(name: str, value: str) -> dict[str, str]:
    if name == "font":
        found = FONT.match(value)
        return {"font-size": found[1]} if found else {}
    return {name: value} if name and name != "font-family" else {}

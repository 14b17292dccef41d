"""Figures as parts of a page: SVG without styles of its own, which the page forbids, in its colours."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fovea.study.analysis.row import Cost, Row
from fovea.study.report.pareto import Panel, described, draw, size
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, figure
from fovea.study.report.table import visible

THEME = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", "#ffffff": "--paper"}
THEME |= {colour.lower(): f"--c{i}" for i, colour in enumerate(COLOURS)}
FONT = re.compile(r"(?:[\w-]+ )*?([\d.]+)px ")
DROPPED = {"metadata", "style", "title"}


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
        stream = io.StringIO()
        made.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(stream.getvalue())
    _own(root, prefix)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
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

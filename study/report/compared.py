"""A comparison of two studies as text: what differs in where they come from, and what in their figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from fovea.study.analysis.change import Change
from fovea.study.report.study_table import star
from fovea.study.report.table import figure
from fovea.study.report.terminal import Groups

NAMES = {"seconds": "s/image", "flops": "FLOPs", "memory_bytes": "memory"}
HEAD = ["figure", "first", "second", "change", "n"]
NOTES = (
    "Costs: the second over the first, in per cent; the median over the batches that both have. The two were "
    "not measured in turns: a machine that was busier at one time is in them.",
    "Scores: the second minus the first, with 95 % intervals, over the images that both have, resampled "
    "together; n 0: no image is in both, the two are taken as independent. * holds after Holm's correction "
    "for all of these differences.",
)


def origins(differences: Mapping[str, tuple[Any, Any]], longest: int | None = None) -> list[list[str]]:
    """A line per difference; nothing where there is none. longest: characters that are shown of a value."""
    lines = [[key, *(_cut(told(x), longest) for x in values)] for key, values in differences.items()]
    return [["differs in", "first", "second"], *lines] if lines else []


def _cut(text: str, longest: int | None) -> str:
    return f"{text[: longest - 1]}…" if longest and len(text) > longest else text


def lines(found: Sequence[Change]) -> Groups:
    """Cell to a line per figure, under HEAD."""
    groups: dict[str, list[list[str]]] = {}
    for change in found:
        facts, key = change.facts, change.figure
        name = facts.heading(key) if facts else NAMES.get(key, key)
        values = [_value(change.figure, x) for x in (change.a, change.b)]
        n = "" if change.by is None or change.figure in ("flops", "memory_bytes") else str(change.pairs)
        groups.setdefault(change.cell, []).append([name, *values, by(change), n])
    return list(groups.items())


def _value(name: str, x: float | None) -> str:
    if x is None:
        return "–"
    units = {"memory_bytes": (2**30, " GiB"), "flops": (1e9, " G"), "speedup": (1, "×")}
    scale, unit = units.get(name, (1, ""))
    return f"{x / scale:.2f}{unit}" if unit else figure(x)


def by(change: Change) -> str:
    if change.by is None:
        return change.why or "–"
    scale, unit = (100, " %") if change.relative else (1, "")
    value, low, high = (scale * x for x in (change.by.value, change.by.low, change.by.high))
    if value == low == high == 0:
        return "same"
    text = f"{'+' if value >= 0 else ''}{_digits(value, change)}{unit}"
    bounds = "" if low == high else f" [{_digits(low, change)}, {_digits(high, change)}]"
    return f"{text}{bounds}{star(change.holm)}"


def _digits(x: float, change: Change) -> str:
    return f"{x:.1f}".replace("-", "−") if change.relative else figure(x)


def told(value: Any) -> str:
    return "–" if value is None else str(value)


def markdown(heads: Sequence[str], sources: Sequence[Sequence[str]], groups: Groups) -> str:
    lines = [[cell, *line] for cell, figures in groups for line in figures]
    body = [["cell", *HEAD], *lines]
    parts = [_escaped(text) for text in heads]
    parts += [_table(table, left) for table, left in ((sources, 3), (body, 2)) if table]
    return "\n\n".join([*parts, *map(_escaped, NOTES)]) + "\n"


def _table(lines: Sequence[Sequence[str]], left: int) -> str:
    head, *rest = [[_escaped(text).replace("|", r"\|") for text in line] for line in lines]
    rule = [":--" if i < left else "--:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")

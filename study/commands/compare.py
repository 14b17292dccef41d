"""compare=[a,b]: the same cells in two studies, before and after a change, on two machines, at two seeds.

Cells are matched by what they are called, and those left over by their ids. The images need not be here;
where they are, they are held against each other to the last bit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovea.study.analysis.change import Change, changes
from fovea.study.commands import contrast
from fovea.study.commands.command import Deed
from fovea.study.commands.contrast import HEAD, NOTES, markdown, origins, told
from fovea.study.commands.origins import differing, identical
from fovea.study.config.errors import Refused
from fovea.study.config.schema import Settings
from fovea.study.plan.plan import own
from fovea.study.report.terminal import grouped, say, show, terminal
from fovea.study.store import write
from fovea.study.stored import Record, Stored, find, rounded

Pairs = list[tuple[Record, Record]]
SHOWN = 40  # characters of a value on the terminal
Images = dict[str, tuple[int, int]]  # how many are the same, of how many


def run(deed: Deed) -> int:
    deed.only("name", "results")
    results, name = deed.plain("results", "results"), deed.plain("name")
    own(Settings, {"prompts": "", "name": name or None})
    a, b = _two(deed, results)
    pairs, rest = matched(a, b)
    if not pairs:
        raise Refused(f"{deed.said}: they have no cell in common: {'; '.join(', '.join(r) for r in rest)}")
    differences, found = differing(a, b, pairs), changes(a, b, pairs)
    images = {q["label"]: identical(a, b, (p, q)) for p, q in pairs}
    groups = contrast.grouped(found)
    heads = _heads(a, b, pairs, rest, images)
    console = terminal(120)
    for text in heads:
        say(text, console)
    sources = origins(differences, SHOWN) or [["nothing differs in where they come from"]]
    show(sources, console, left=3, whole=0)
    grouped(groups, HEAD, console)
    for note in NOTES:
        say(note, console, "dim")
    if name:
        write(Path(results) / name / "compare.md", markdown(heads, origins(differences), groups))
    summary = {
        "compare": [str(a.folder), str(b.folder)],
        "cells": len(pairs),
        "only": rest,
        "identical": sum(n for n, _ in images.values()),
        "images": sum(n for _, n in images.values()),
        "differs": {key: [told(x), told(y)] for key, (x, y) in differences.items()},
        "rows": [_record(change) for change in found],
    }
    print(json.dumps(summary, ensure_ascii=False, allow_nan=False))
    return 0


def _two(deed: Deed, results: str) -> tuple[Stored, Stored]:
    values = deed.folders()
    if len(values) != 2:
        raise Refused(f"{deed.said}: give two studies, compare=[results/A,results/B]")
    a, b = (find(deed.said, value, results) for value in values)
    for study in (a, b):
        if not study.records:
            raise Refused(f"{deed.said}: {study.folder} has no table yet; rescore={study.folder} makes it")
    return a, b


def matched(a: Stored, b: Stored) -> tuple[Pairs, list[list[str]]]:
    """Pairs of records, and the labels that are in the first and in the second study only."""
    labels = {r["label"]: r for r in a.records}
    pairs = [(labels[r["label"]], r) for r in b.records if r["label"] in labels]
    used = {r["label"] for _, r in pairs}
    ids = {r["cell"]: r for r in a.records if r["label"] not in used}
    pairs += [(ids[r["cell"]], r) for r in b.records if r["label"] not in used and r["cell"] in ids]
    taken = {p["cell"] for p, _ in pairs}, {q["cell"] for _, q in pairs}
    rest = [[r["label"] for r in s.records if r["cell"] not in t] for s, t in zip((a, b), taken, strict=True)]
    return pairs, rest


def _heads(a: Stored, b: Stored, pairs: Pairs, rest: Sequence[list[str]], images: Images) -> list[str]:
    names = ("first", "second")
    out = [f"{name}: {s.folder} ({s.made}, commit {s.commit})" for name, s in zip(names, (a, b), strict=True)]
    same = sum(p["cell"] == q["cell"] for p, q in pairs)
    renamed = [f"{p['label']} is {q['label']}" for p, q in pairs if p["label"] != q["label"]]
    out.append(f"{len(pairs)} cells in both, {same} of them of the same id{_list('; by id: ', renamed)}")
    out += [
        _list(f"only in the {name}: ", labels) for name, labels in zip(names, rest, strict=True) if labels
    ]
    alike, there = (sum(n) for n in zip(*images.values(), strict=True))
    other = [f"{label} {k}/{n}" for label, (k, n) in images.items() if k < n] if alike else []
    said = f"{alike} of {there} images are the same to the bit" if there else "images: not here, not compared"
    return [*out, f"{said}{_list('; not all of ', other)}"]


def _list(before: str, items: Sequence[str]) -> str:
    return f"{before}{', '.join(items)}" if items else ""


def _record(change: Change) -> dict[str, Any]:
    plain = {"cell": change.cell, "figure": change.figure, "first": change.a, "second": change.b}
    bounds = {key: getattr(change.by, key) for key in ("value", "low", "high")} if change.by else {}
    rest = {key: getattr(change, key) for key in ("relative", "pairs", "holm", "why")}
    return {key: rounded(value) for key, value in (plain | bounds | rest).items()}

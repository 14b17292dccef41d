"""compare=[a,b]: compare the same cells in two studies: before and after a change, on two machines, at two
seeds.

Cells are matched by label, and the rest by id. With versus=LABEL, all cells of the second study are compared
with this cell of the first. The images need not be present; if they are, they are compared to the last bit.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.study.commands.command import Command
from fovea.study.config.compose import flat
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import validated
from fovea.study.config.schema import Settings
from fovea.study.files import write
from fovea.study.picture import Damaged, same
from fovea.study.plan.plan import ACTION_KEYS
from fovea.study.report.formats import literal, markdown
from fovea.study.report.terminal import print_table, print_text, terminal
from fovea.study.stored import Record, Stored, find, rounded
from fovea.study.streams import print_summary

if TYPE_CHECKING:
    from fovea.study.analysis.change import Change

Pairs = list[tuple[Record, Record]]
Images = dict[str, tuple[int, int]]  # by label: identical images, and all
PLAIN = ("commit", "dirty", "python", "system", "threads", "random_weights")
IRRELEVANT_KEYS = ACTION_KEYS | {"results", "launcher", "logger", "sweep"}  # affect no result
VOLATILE = {"load_average"}  # changing state of the machine
MAX_NAMED = 4  # cells named in a line


def run(command: Command) -> int:
    command.allow("name", "results", "versus")
    results, name = command.results, command.option("name")
    validated(Settings, {"prompts": "", "name": name or None})
    a, b = _load_two(command, results)
    if versus := command.option("versus"):
        return compare_with_cell(a, b, versus)
    pairs, rest = match_cells(a, b)
    if not pairs:
        raise Refused(f"{command.text}: they have no cell in common: {'; '.join(', '.join(r) for r in rest)}")
    from fovea.study.analysis.change import changes  # slow import: after the checks
    from fovea.study.report.comparisons import change_table, origin_table, text_or_dash

    differences, found = find_differences(a, b, pairs), changes(a, b, pairs)
    images = {q["label"]: count_identical(a, b, (p, q)) for p, q in pairs}
    heads, tables = _heads(a, b, pairs, rest, images), [origin_table(differences), change_table(found)]
    heads += [] if differences else ["nothing differs in where they come from"]
    console = terminal(160)
    for text in heads:
        print_text(text, console)
    for table in filter(None, tables):
        print_table(table, console)
    if name:
        parts = [*map(literal, heads), *map(markdown, filter(None, tables))]
        write(Path(results) / name / "compare.md", "\n\n".join(parts))
    differs = {key: [text_or_dash(value) for value in both] for key, both in differences.items()}
    print_summary(_summary(a, b, rest, images, differs, found))
    return 0


def compare_with_cell(a: Stored, b: Stored, versus: str) -> int:
    """Compare the cells of the second study with one cell of the first, over the images in both."""
    from fovea.study.analysis.contrasts import against, of_study
    from fovea.study.report.comparisons import contrast_table

    for study in (a, b):
        if not study.samples:
            raise Refused(
                f"versus={versus}: {study.folder} has no samples.parquet, the scores of every image"
            )
    found = against(of_study(b), of_study(a), versus)
    table = contrast_table(found, a.random_weights or b.random_weights)
    if table is None:
        raise Refused(f"versus={versus}: no image of it, or no score, is in {b.folder} too")
    print_table(table, terminal(120))
    rows = [{key: rounded(value) for key, value in record.items()} for record in table.records()]
    print_summary({"compare": [str(a.folder), str(b.folder)], "versus": versus, "rows": rows})
    return 0


def _summary(
    a: Stored,
    b: Stored,
    rest: list[list[str]],
    images: Images,
    differs: Mapping[str, list[str]],
    found: "Sequence[Change]",
) -> dict[str, Any]:
    return {
        "compare": [str(a.folder), str(b.folder)],
        "cells": len(images),
        "only": rest,
        "identical": sum(n for n, _ in images.values()),
        "images": sum(n for _, n in images.values()),
        "differs": differs,
        "rows": [_record(change) for change in found],
    }


def _load_two(command: Command, results: str) -> tuple[Stored, Stored]:
    values = command.folders()
    if len(values) != 2:
        raise Refused(f"{command.text}: give two studies, compare=[results/A,results/B]")
    a, b = (find(command.text, value, results) for value in values)
    for study in (a, b):
        if not study.records:
            raise Refused(f"{command.text}: {study.folder} has no table yet; rescore={study.folder} makes it")
    return a, b


def match_cells(a: Stored, b: Stored) -> tuple[Pairs, list[list[str]]]:
    """Return pairs of records, and the labels found only in the first and only in the second study."""
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
    alike_ids = sum(p["cell"] == q["cell"] for p, q in pairs)
    renamed = [f"{p['label']} is {q['label']}" for p, q in pairs if p["label"] != q["label"]]
    out.append(f"{len(pairs)} cells in both, {alike_ids} of them of the same id{_list('; by id: ', renamed)}")
    out += [
        _list(f"only in the {name}: ", labels) for name, labels in zip(names, rest, strict=True) if labels
    ]
    alike, there = (sum(n) for n in zip(*images.values(), strict=True))
    other = [f"{label} {k}/{n}" for label, (k, n) in images.items() if k < n] if alike else []
    line = f"{alike} of {there} images are the same to the bit" if there else "images: not here, not compared"
    return [*out, f"{line}{_list('; not all of ', other)}"]


def _list(before: str, items: Sequence[str]) -> str:
    return f"{before}{', '.join(items)}" if items else ""


def _record(change: "Change") -> dict[str, Any]:
    plain = {"cell": change.cell, "figure": change.figure, "first": change.a, "second": change.b}
    bounds = {key: getattr(change.by, key) for key in ("value", "low", "high")} if change.by else {}
    rest = {key: getattr(change, key) for key in ("relative", "pairs", "holm", "why")}
    return {key: rounded(value) for key, value in (plain | bounds | rest).items()}


def find_differences(a: Stored, b: Stored, pairs: Pairs) -> dict[str, tuple[Any, Any]]:
    """Return what differs between the studies, with both values."""
    x, y = _facts(a.provenance), _facts(b.provenance)
    found = {key: (x.get(key), y.get(key)) for key in dict.fromkeys([*x, *y]) if x.get(key) != y.get(key)}
    for part in ("weights", "code"):
        cells = [(_cell(a, p).get(part), _cell(b, q).get(part), q["label"]) for p, q in pairs]
        for before, after in dict.fromkeys((p, q) for p, q, _ in cells if p != q):
            labels = [label for p, q, label in cells if (p, q) == (before, after)]
            unnamed = len(labels) - MAX_NAMED
            names = [*labels[:MAX_NAMED], *([f"{unnamed} more"] if unnamed > 0 else [])]
            found[f"{part} of {', '.join(names)}"] = (before, after)
    other, shared = _noise(a, b, pairs)
    if other:
        found[f"initial noise of {other} of {shared} images"] = ("one", "another")
    return found


def count_identical(a: Stored, b: Stored, pair: tuple[Record, Record]) -> tuple[int, int]:
    """Return the number of images identical to the last bit, and the number that both studies have here."""
    x, y = pair
    keys = a.provenance["samples"].keys() & b.provenance["samples"].keys()
    files = [(a.image(x["cell"], key), b.image(y["cell"], key)) for key in keys]
    there = [(p, q) for p, q in files if p and q]
    return sum(_same(p, q) for p, q in there), len(there)


def _same(a: Path, b: Path) -> bool:
    with suppress(Damaged):
        return same(a, b)
    return False


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in record.get("config", {}).items() if key not in IRRELEVANT_KEYS}
    machine = {key: v for key, v in (record.get("machine") or {}).items() if key not in VOLATILE}
    prompts = record.get("prompts") or {}
    return {
        **{key: record.get(key) for key in PLAIN},
        **flat({"package": record.get("packages"), "machine": machine}),
        **flat(config),
        "images drawn": prompts.get("drawn"),
        "prompt set": (prompts.get("set") or {}).get("hash"),
    }


def _cell(study: Stored, record: Record) -> Record:
    return study.provenance["cells"].get(record["cell"], {})


def _noise(a: Stored, b: Stored, pairs: Pairs) -> tuple[int, int]:
    """Return the number of shared images that started from different noise, and the number of shared
    images."""
    other, shared = 0, 0
    x, y = ({(r["cell"], r["key"]): r["noise"] for r in study.samples} for study in (a, b))
    for p, q in pairs:
        keys = {key for cell, key in x if cell == p["cell"]} & {key for cell, key in y if cell == q["cell"]}
        shared += len(keys)
        other += sum(x[p["cell"], key] != y[q["cell"], key] for key in keys)
    return other, shared

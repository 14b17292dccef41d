"""show=FOLDER: the table of a study again, from what lies in its folder; show= alone: which studies there
are."""

from os.path import expanduser, isdir
from pathlib import Path
from statistics import fmean
from typing import Any

from fovea.study.commands.command import Command
from fovea.study.config.errors import Refused
from fovea.study.files import read_json
from fovea.study.report import formats, terminal
from fovea.study.report.table import COUNT, Column, Table
from fovea.study.run.progress import active_workers, clock, seconds_left, seconds_per_image
from fovea.study.store import Store
from fovea.study.stored import Stored, brief, find, studies, unreadable
from fovea.study.streams import print_summary


def run(command: Command) -> int:
    results = command.results
    if not command.value or _holds_studies(Path(command.value)):
        return every(command)
    study = find(command.text, command.value, results)
    if study.fault:
        raise Refused(f"{command.text}: {study.fault}")
    given = command.allow("logger", "results", "versus")
    logger = _logger([text for text in given if not text.startswith(("results=", "versus="))])
    versus = command.option("versus")
    _print(study, _against(study, versus) if versus else None)
    logger(study.folder)
    print_summary(summary(study))
    return 0


def _against(study: Stored, versus: str) -> Table | None:
    # seconds, only where they are asked for
    from fovea.study.analysis.contrasts import against, of_study
    from fovea.study.report.comparisons import contrast_table

    if not study.samples:
        raise Refused(f"versus={versus}: {study.folder} has no samples.parquet, the scores of every image")
    return contrast_table(against(of_study(study), of_study(study), versus), study.random_weights)


def every(command: Command) -> int:
    """The studies below a folder, the newest last."""
    command.allow("results")
    folder = command.value if command.name == "show" else ""
    results = Path(expanduser(folder or command.results))
    found = sorted(studies(results), key=lambda study: study.made)
    rows = [_row(study) for study in found if not study.fault]
    faults = [study.fault for study in [*found, *unreadable(results)] if study.fault]
    lines = [["study", "cells", "commit", "made", ""]]
    for study, row in zip((study for study in found if not study.fault), rows, strict=True):
        mark = "random weights" if study.random_weights else ""
        lines.append([row["study"], f"{row['done']}/{row['cells']}", study.commit, study.made, mark])
    console = terminal.terminal(120)
    terminal.print_lines(lines, console, left=5)
    for fault in faults or ([] if found else [f"no study in {results}/"]):
        terminal.print_text(fault, console)
    print_summary(
        {"list": "studies", "names": [row["study"] for row in rows], "rows": rows, "faults": faults}
    )
    return 0


def _row(study: Stored) -> dict[str, Any]:
    done, planned = study.done
    return {
        "study": str(study.folder),
        "made": study.made,
        "done": done,
        "cells": planned,
        "commit": study.provenance.get("commit"),
        "random_weights": study.random_weights,
    }


def summary(study: Stored) -> dict[str, Any]:
    """As run.py prints it last when the study is made."""
    done, planned = study.done
    return {
        "study": str(study.folder),
        "cells": planned,
        "done": done,
        "failed": sum(record.get("failure") is not None for record in study.records),
        "random_weights": study.random_weights,
        "rows": [brief(record, study.scores) for record in study.records],
        "made": study.made,
        "commit": study.provenance.get("commit"),
    }


def _holds_studies(folder: Path) -> bool:
    return isdir(folder) and not Stored(folder).provenance and bool(studies(folder))


def _logger(given: list[str]) -> Any:
    from fovea.study.config.compose import load, whole
    from fovea.study.config.instantiate import instantiate

    return instantiate(whole(load(given))["logger"], "logger", "fovea.study")


def _print(study: Stored, pairs: Table | None) -> None:
    console, found = terminal.terminal(), tables(study, pairs)
    for line in _under_way(study):
        terminal.print_text(line, console)
    if not found:
        done, planned = study.done
        terminal.print_text(
            f"no table yet: {done} of {planned} cells are done; the same command goes on", console
        )
    for table in found:
        terminal.print_table(table, console)
    terminal.print_text("\n".join(origin(study)), console)


def _under_way(study: Stored) -> list[str]:
    """While somebody works on it: how far it is, by whom, and how long the rest takes."""
    store, known = Store(study.folder), study.provenance
    at_work = active_workers(store, known["cells"])
    if not at_work:
        return []
    starts = (read_json(study.folder / "runs" / f"{one.session}.json") for one in at_work)
    known = next(filter(None, starts), known)  # of what is made now, which may be more than was reported
    cells, keys = known["cells"], known["samples"]
    there = {cell: store.samples(cell).only(keys) for cell in cells}
    left = {cell: len(keys) - len(found) for cell, found in there.items()}
    cost = {cell: seconds_per_image(found.batches.values()) for cell, found in there.items()}
    timed = [seconds for seconds in cost.values() if seconds is not None]
    time_left = "time unknown"
    if timed:  # cells that were not begun are taken to cost what the others do
        cost = {cell: fmean(timed) if seconds is None else seconds for cell, seconds in cost.items()}
        time_left = f"about {clock(seconds_left(left, cost, at_work))} left"
    total = len(keys) * len(cells)
    return [f"{total - sum(left.values())} of {total} images are made, {time_left}", *map(str, at_work)]


def tables(study: Stored, pairs: Table | None = None) -> list[Table]:
    """As they were written; of a study whose tables another version wrote, the figures of its records. pairs:
    stands in for those that were written."""
    from fovea.study.report.comparisons import contrast_table, in_short

    found = formats.read(study.folder / "table.parquet") or _plain(study)
    others = (formats.read(study.folder / f"{name}.parquet") for name in ("contrasts", "published"))
    written, beside = others
    if written is None and pairs is None and study.samples:  # of a study from before there were any
        from fovea.study.analysis.contrasts import controlled, of_study

        written = contrast_table(controlled(of_study(study)), study.random_weights)
    shown = pairs or (written and in_short(written))
    return [table for table in (found, shown, beside) if table is not None]


def _plain(study: Stored) -> Table | None:
    if not study.records:
        return None
    bounded = [Column(key, key, "interval") for key in ("seconds", "speedup")]
    scores = [Column(name, name, "error") for name in study.scores]
    columns = [Column("label", "method", left=True), *bounded, Column("flops_ratio", "flops_ratio"), *scores]
    columns += [Column("n", "n", digits=COUNT), Column("role"), Column("failure")]
    rows = [{column.key: formats.entry(column, record) for column in columns} for record in study.records]
    return Table(columns, rows)


def origin(study: Stored) -> list[str]:
    """Where and when it was made, in a few lines."""
    record = study.provenance
    machine, packages = record.get("machine") or {}, record.get("packages") or {}
    device = machine.get("gpu") or machine.get("name") or machine.get("cpu") or machine.get("device")
    shown = ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers") if name in packages)
    lines = [
        f"made: {study.made}, commit {study.commit}, {shown}",
        f"on: {device or 'unknown'}, {record.get('threads', '?')} threads",
        f"by: {record.get('command', 'unknown')}",
    ]
    if scored := record.get("rescored"):
        lines.append(f"scored again: {scored.get('time')}, by {scored.get('command')}")
    for source in (record.get("merged") or {}).get("sources", []):
        lines.append(f"from: {source['study']}: {source.get('command', 'unknown')}")
    return lines

"""show=FOLDER: print the table of a study from its files; show= alone: list the studies."""

from os.path import expanduser, isdir
from pathlib import Path
from typing import Any

from fovea.study.commands.command import Command, root
from fovea.study.config.errors import Refused
from fovea.study.files import read_json
from fovea.study.report import formats, terminal
from fovea.study.report.table import COUNT, Column, Table
from fovea.study.run.progress import active_workers, clock, count_busy, seconds_left, seconds_per_image
from fovea.study.store import Store
from fovea.study.stored import Stored, find, studies, unreadable
from fovea.study.streams import print_summary


def run(command: Command) -> int:
    results = command.results
    if not command.value or _holds_studies(Path(command.value)):
        return list_studies(command)
    study = find(command.text, command.value, results)
    if study.fault:
        raise Refused(f"{command.text}: {study.fault}")
    given = command.allow("logger", "results", "versus")
    logger = _logger([text for text in given if root(text) == "logger"])
    versus = command.option("versus")
    _print(study, _against(study, versus) if versus else None)
    logger(study.folder)
    print_summary(study.summary() | {"made": study.made, "commit": study.provenance.get("commit")})
    return 0


def _against(study: Stored, versus: str) -> Table:
    # deferred: these imports take seconds
    from fovea.study.analysis.contrasts import against, of_study
    from fovea.study.report.comparisons import contrast_table

    if not study.samples:
        raise Refused(f"versus={versus}: {study.folder} has no samples.parquet, the scores of every image")
    found = contrast_table(against(of_study(study), of_study(study), versus), study.random_weights)
    if found is None:
        raise Refused(f"versus={versus}: no other cell of {study.folder} shares an image and a score with it")
    return found


def list_studies(command: Command) -> int:
    """List the studies below a folder, newest last."""
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
    """Return, if someone works on the study, its progress, the workers and the remaining time."""
    store, known = Store(study.folder), study.provenance
    at_work = active_workers(store, known["cells"])
    if not at_work:
        return []
    starts = (read_json(study.folder / "runs" / f"{one.session}.json") for one in at_work)
    known = next(filter(None, starts), known)  # the running plan may be larger than the reported one
    cells, keys = known["cells"], known["samples"]
    there = {cell: store.samples(cell).only(keys) for cell in cells}
    left = {cell: len(keys) - len(found) for cell, found in there.items()}
    times = {cell: seconds_per_image(found.batches.values()) for cell, found in there.items()}
    cost = {cell: seconds for cell, seconds in times.items() if seconds is not None}
    seconds = seconds_left(left, cost, count_busy(at_work))
    time_left = "time unknown" if seconds is None else f"about {clock(seconds)} left"
    total = len(keys) * len(cells)
    return [f"{total - sum(left.values())} of {total} images are made, {time_left}", *map(str, at_work)]


def tables(study: Stored, pairs: Table | None = None) -> list[Table]:
    """Return the tables as written, or plain figures from the records if another version wrote them. pairs:
    replaces the stored comparisons."""
    from fovea.study.report.comparisons import contrast_table, in_short

    found = formats.read(study.folder / "table.parquet") or _plain(study)
    published = formats.read(study.folder / "published.parquet")
    contrasts = formats.read(study.folder / "contrasts.parquet")
    if contrasts is None and pairs is None and study.samples:  # as in the studies of results/
        from fovea.study.analysis.contrasts import controlled, of_study

        contrasts = contrast_table(controlled(of_study(study)), study.random_weights)
    shown = pairs or (contrasts and in_short(contrasts))
    return [table for table in (found, shown, published) if table is not None]


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
    """Return a few lines on where and when the study was made."""
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

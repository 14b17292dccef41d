"""show=FOLDER: the table of a study again, from what lies in its folder; show= alone: which studies there
are."""

import re
from pathlib import Path
from typing import Any

from fovea.study.analysis.paper import TITLE
from fovea.study.commands.command import Command
from fovea.study.report import terminal
from fovea.study.stored import Stored, brief, find, studies
from fovea.study.streams import print_summary

STYLES = {"steps": "dim"}


def run(command: Command) -> int:
    results = command.option("results", "results")
    if not command.value or _holds_studies(Path(command.value)):
        return every(command)
    study = find(command.text, command.value, results)
    given = [text for text in command.allow("logger", "results") if not text.startswith("results=")]
    logger = _logger(given)
    _print(study)
    logger(study.folder)
    print_summary(summary(study))
    return 0


def every(command: Command) -> int:
    """The studies below a folder, the newest last."""
    command.allow("results")
    folder = command.value if command.name == "show" else ""
    results = Path(folder or command.option("results", "results"))
    found = sorted(studies(results), key=lambda study: study.made)
    lines = [["study", "cells", "commit", "made", ""]]
    for study in found:
        done, planned = study.done
        mark = "random weights" if study.random_weights else ""
        lines.append([str(study.folder), f"{done}/{planned}", study.commit, study.made, mark])
    console = terminal.terminal(120)
    terminal.show(lines, console, left=5)
    if not found:
        terminal.say(f"no study in {results}/", console)
    rows = [
        {
            "study": str(study.folder),
            "made": study.made,
            "done": study.done[0],
            "cells": study.done[1],
            "commit": study.provenance.get("commit"),
            "random_weights": study.random_weights,
        }
        for study in found
    ]
    print_summary({"list": "studies", "names": [row["study"] for row in rows], "rows": rows})
    return 0


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
    return folder.is_dir() and not Stored(folder).provenance and bool(studies(folder))


def _logger(given: list[str]) -> Any:
    from fovea.study.config.compose import load, whole
    from fovea.study.config.instantiate import build

    return build(whole(load(given))["logger"], "logger", "fovea.study")


def _print(study: Stored) -> None:
    console = terminal.terminal()
    lines, notes = table(study)
    if lines:
        kinds = {record["label"]: record for record in study.records}
        found = [kinds.get(line[0], {}) for line in lines[1:]]
        styles = ["red" if r.get("failure") else STYLES.get(r.get("role", ""), "") for r in found]
        terminal.study(lines, console, styles)
    else:
        done, planned = study.done
        terminal.say(f"no table yet: {done} of {planned} cells are done; the same command goes on", console)
    for note in notes:
        terminal.say(note, console, "dim")
    if (paper := study.folder / "printed.md").is_file():
        terminal.told(*read(paper), console, TITLE)
    terminal.say("\n".join(origin(study)), console)


def table(study: Stored) -> tuple[list[list[str]], list[str]]:
    """Header and body, and the notes, as table.md has them; without it, the plain figures of the records."""
    file = study.folder / "table.md"
    return read(file) if file.is_file() else (_plain(study), [])


def read(file: Path) -> tuple[list[list[str]], list[str]]:
    """A table that study/report/typeset.py wrote, and the notes below it."""
    text = file.read_text("utf-8").replace("&lt;", "<")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    cells = [[cell.replace(r"\|", "|") for cell in line] for line in split]
    notes = text.rpartition(lines[-1] if lines else "")[2]
    return cells[:1] + cells[2:], [note.strip() for note in notes.split("\n\n") if note.strip()]


def _plain(study: Stored) -> list[list[str]]:
    if not study.records:
        return []
    keys = ["label", "seconds", "speedup", "flops_ratio", *study.scores, "n"]
    body = [["–" if r[key] is None else _figure(r[key]) for key in keys] for r in study.records]
    return [keys, *body]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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

"""Where the numbers come from: commit, command, packages, device."""

import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from fovea.study.config.errors import Refused, as_text
from fovea.study.config.groups import ROOT
from fovea.study.files import read_json, write_json
from fovea.study.plan import fingerprint
from fovea.study.plan.cells import Cell
from fovea.study.plan.fingerprint import digest, threads
from fovea.study.plan.plan import Plan
from fovea.study.records import VERSION, StudyRecord
from fovea.study.store import Store

NOT_A_FIELD = ("id", "model", "method", "identity")  # the id is the key; the others are in the identity
CELL_FIELDS = tuple(f.name for f in fields(Cell) if f.name not in NOT_A_FIELD)
FIRST = (
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "torchmetrics",
    "open_clip_torch",
    "hydra-core",
    "pandas",
)


def provenance(plan: Plan, command: Sequence[str], session: str) -> dict[str, Any]:
    """Return what a reviewer needs to repeat the study, and nothing else of the user's environment."""
    record = {
        "version": VERSION,
        "session": session,
        "command": command_line(command),
        "time": now(),
        **git(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages(),
        "machine": device(plan),
        "threads": threads(),
        "seeds": list(plan.settings.seeds),
        "prompts": drawn(plan.keys, plan.prompts),
        "random_weights": plan.random_weights,
        "config": plan.config,
        "cells": {cell.id: described(cell) for cell in plan.cells},
        "samples": {
            s.key: {"id": s.prompt.id, "prompt": s.prompt.text, "seed": s.seed} for s in plan.samples
        },
    }
    StudyRecord.model_validate(record)
    return to_jsonable_python(record, inf_nan_mode="null")


def check_worker(plan: Plan) -> None:
    """Raise Refused if a worker on another node has other packages, code or weights: it would make other
    cells than planned, and the study would mix both unnoticed."""
    for cell in plan.cells:
        here, planned = fingerprint.made_of(cell.model, cell.method), cell.identity
        pairs = {what: (here.get(what), planned.get(what)) for what in fingerprint.MADE_OF}
        differing = [
            f"{what}: {as_text(own)}, planned with {as_text(known)}"
            for what, (own, known) in pairs.items()
            if own != known
        ]
        if differing:
            found = "; ".join(differing)
            raise Refused(
                f"{cell.label}: {platform.node()} would make another cell ({found}): all nodes need the same "
                "environment, code and weights"
            )


def note_worker(plan: Plan, store: Store, session: str) -> None:
    """Record the start of a worker: like the session that started it, except for time and device."""
    record = read_json(store.folder / "runs" / f"{session}.json") or {}
    own = {"session": store.session, "time": now(), "started_by": session}
    own |= {"machine": device(plan), "threads": threads(), "system": platform.platform()}
    write_json(store.folder / "runs" / f"{store.session}.json", record | own)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line(command: Sequence[str]) -> str:
    """Return the command as it can be typed again."""
    return shlex.join(["python", "run.py", *command])


def drawn(keys: Iterable[str], of: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the samples and of the prompt set they are from."""
    keys = list(keys)
    return {"n": len(keys), "drawn": digest(keys), "set": of}


def described(cell: Cell) -> dict[str, Any]:
    """Return everything about a cell but its id; `plan.cell_of` is the inverse."""
    return {key: getattr(cell, key) for key in CELL_FIELDS} | cell.identity


def git() -> dict[str, Any]:
    """Return the commit, and whether the working tree differs from it; both None outside a checkout, for
    example if the package is installed inside another project. An archive made by scripts/gpu.sh states its
    commit in a file."""
    top = _ask_git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        packed = ROOT / "COMMIT"
        return {"commit": packed.read_text("utf-8").strip() if packed.is_file() else None, "dirty": None}
    status = _ask_git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _ask_git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _ask_git(*arguments: str) -> str | None:
    """Return what a git command prints here; None if it fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


@cache
def packages() -> dict[str, str]:
    """Return the versions of all packages (read once per process), those that affect results first."""
    known = (d.metadata for d in distributions())  # each access reads from disk
    found = {about["Name"]: about["Version"] for about in known if about["Name"]}
    first = {name: found[name] for name in FIRST if name in found}
    return first | dict(sorted(found.items(), key=lambda item: item[0].lower()))


def device(plan: Plan) -> dict[str, Any]:
    """Return name, cores, driver and clocks of the device that the cells run on, as read by eval.device."""
    import torch

    from fovea.eval.device import describe

    asked = str(plan.cells[0].model.get("device", "cpu"))
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    return describe(chosen) | {"cuda": torch.version.cuda, "processors_of_the_system": os.cpu_count()}

"""A stored study, read from its records and tables without its images."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from os.path import expanduser, isdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.files import hash_of, read_json
from fovea.study.records import StudyRecord
from fovea.study.store import Store

if TYPE_CHECKING:
    from fovea.eval.facts import Facts

Record = dict[str, Any]
FORMATTING = b"fovea.table"  # metadata key of a Parquet file for the table's formatting
COLUMNS = {  # required of each table
    "table.parquet": {"cell", "label", "n", "planned"},
    "samples.parquet": {"cell", "key", "label", "prompt", "noise", "batch", "batch_size", "seconds"},
    "traces.parquet": {"label", "step"},
}


@dataclass(frozen=True)
class Stored:
    """A study's folder.

    records: the table, one record per cell.
    samples: one record per image and cell.
    traces: one record per step of some images.

    Each is empty if its file does not exist."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def provenance(self) -> Record:
        """The provenance of the last report, or else of the last start."""
        starts = sorted((self.folder / "runs").glob("*.json"), reverse=True)
        return self.reported or next(filter(None, map(_provenance, starts)), {})

    @cached_property
    def reported(self) -> Record:
        """The provenance of the last report."""
        return _provenance(self.folder / "provenance.json")

    @cached_property
    def records(self) -> list[Record]:
        """Raises Refused if the table is not the one that the provenance is of."""
        file = self.folder / "table.parquet"
        found, known = _rows(file), self.reported.get("table")
        if found and known and _is_as_written(file) and hash_of(file) != known:
            raise Refused(
                f"{file} is of another report than provenance.json: one is being written, or was stopped in "
                f"the middle: repeat its command, or rescore={self.folder}"
            )
        return found

    @cached_property
    def samples(self) -> list[Record]:
        return _rows(self.folder / "samples.parquet")

    @cached_property
    def traces(self) -> list[Record]:
        return _rows(self.folder / "traces.parquet")

    @cached_property
    def scores(self) -> list[str]:
        """Names of the quality scores, in the table's order."""
        return [key for key in (self.records or [{}])[0] if f"{key}_se" in self.records[0]]

    @cached_property
    def facts(self) -> "dict[str, Facts]":
        """The facts of each score by name, as reported or, before the first report, as the metrics define
        them."""
        from fovea.eval.facts import Facts

        if stored := self.provenance.get("scores"):
            return {name: Facts(**known) for name, known in stored.items()}
        nodes = self.provenance["config"]["metric"].items()
        scores = [instantiate(node, f"metric.{name}", "fovea.eval").scores for name, node in nodes]
        return {name: facts for given in scores for name, facts in given.items()}

    @cached_property
    def by_cell(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.samples:
            found.setdefault(record["cell"], []).append(record)
        return found

    def per_image(self, cell: str, score: str) -> dict[str, float]:
        """Return a score's values by image, without the images that have none."""
        images = self.by_cell.get(cell, [])
        return {image["key"]: image[score] for image in images if image.get(score) is not None}

    @cached_property
    def fault(self) -> str:
        """What cannot be read, and the remedy; empty if everything can."""
        file = self.folder / "provenance.json"
        if not self.reported and file.is_file():
            return f"{file} {_unreadable(file)}"
        try:
            _ = self.records
        except Refused as refusal:
            return str(refusal)
        return ""

    @property
    def random_weights(self) -> bool:
        return bool(self.provenance.get("random_weights"))

    def image(self, cell: str, key: str) -> Path | None:
        file = Store(self.folder).image(cell, key)
        return file if file.is_file() else None

    @cached_property
    def done(self) -> tuple[int, int]:
        """The numbers of finished and of planned cells, by the table or else by the images on disk."""
        if self.records:
            return sum(r["n"] == r["planned"] for r in self.records), len(self.records)
        wanted, cells, store = set(self.provenance["samples"]), self.provenance["cells"], Store(self.folder)
        return sum(wanted <= set(store.samples(cell)) for cell in cells), len(cells)

    def summary(self) -> Record:
        """Return the folder, the counts of finished and failed cells, and a brief table, as JSON data."""
        done, planned = self.done
        return {
            "study": str(self.folder),
            "cells": planned,
            "done": done,
            "failed": sum(record.get("failure") is not None for record in self.records),
            "random_weights": self.random_weights,
            "rows": [brief(record, self.scores) for record in self.records],
        }

    @property
    def made(self) -> str:
        """The recorded time."""
        return self.provenance["time"]

    @property
    def commit(self) -> str:
        """The short commit, marked if the working tree had changes."""
        commit, dirty = self.provenance.get("commit"), self.provenance.get("dirty")
        short = " / ".join(part[:7] for part in str(commit).split(" / ")) if commit else "unknown"
        return f"{short}, changed" if dirty else short


def find(argument: str, value: str, results: str = "results") -> Stored:
    """Return the study in this folder, or with this name below `results`. Raises Refused with the studies
    that exist. argument: quoted in the message."""
    for folder in (Path(expanduser(value)), Path(expanduser(results)) / value):
        if value and isdir(folder) and (stored := Stored(folder)).provenance:
            return stored
        if value and isdir(folder) and stored.fault:
            raise Refused(f"{argument}: {stored.fault}")
    there = studies(Path(expanduser(results)))
    close = get_close_matches(Path(value).name, [study.name for study in there], n=1, cutoff=0.5)
    meant = next((f"did you mean {study.folder}? " for study in there if [study.name] == close), "")
    known = f"{meant}allowed: {', '.join(str(study.folder) for study in there)}"
    raise Refused(f"{argument}: no study; {known if there else f'there is none in {results}/ either'}")


def studies(results: Path) -> list[Stored]:
    """Return the studies in the folder and in its subfolders."""
    return [found for found in _folders(results) if found.provenance]


def unreadable(results: Path) -> list[Stored]:
    """Return the folders there whose provenance cannot be read."""
    return [found for found in _folders(results) if not found.provenance and found.fault]


def _folders(results: Path) -> list[Stored]:
    folders = sorted({*results.glob("*"), *results.glob("*/*")})
    return [Stored(folder) for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def brief(record: Mapping[str, Any], scores: Iterable[str]) -> Record:
    """Return a table row as in the JSON summary: five digits, infinity as text, which JSON lacks."""
    keys = ["label", "n", "seconds", "speedup", "flops_ratio", *scores]
    failure = {"failure": record["failure"]} if record.get("failure") else {}
    return {key: rounded(record.get(key)) for key in keys} | failure


def rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def _provenance(file: Path) -> Record:
    """Return the provenance; empty if the file is missing, incomplete or something else."""
    record = read_json(file) or {}
    try:
        StudyRecord.model_validate(record)
    except ValidationError:
        return {}
    return record


def _rows(file: Path) -> list[Record]:
    """Return the table's rows, NaN as None; empty if the file does not exist. Raises Refused if it is
    incomplete or has other columns."""
    if not file.is_file():
        return []
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        lines = read_table(file).to_pylist()
    except (ArrowException, OSError):
        raise Refused(f"{file} {_unreadable(file)}") from None
    if lines and not lines[0].keys() >= COLUMNS[file.name]:
        raise Refused(f"{file} is no such table of a study: rescore={file.parent} makes it again")
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r.items()} for r in lines]


def _is_as_written(file: Path) -> bool:
    """True if a table has the formatting that a report writes; other programs leave it out."""
    from pyarrow.parquet import read_schema

    return FORMATTING in (read_schema(file).metadata or {})


def _unreadable(file: Path) -> str:
    """Return why a file cannot be read, and the remedy."""
    try:
        start = file.read_bytes()[:40]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
    if file.suffix == ".parquet":
        return f"is cut off or no Parquet file: rescore={file.parent} makes it again"
    return "is not whole, or not of a study that this version can read"

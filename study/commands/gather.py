"""The cells of several studies in one folder: hard links where the file system has them, the sources
untouched."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fovea.study.config.errors import Refused
from fovea.study.picture import pixels
from fovea.study.store import Store, write_json
from fovea.study.stored import Record, Stored

PART = ".{}.merging"  # of the new folder, until all of it is there


def gather(studies: Sequence[Stored], folder: Path, record: Record) -> None:
    """All cells in one folder, which appears when it is whole, with the record that a rescore can start
    from."""
    part = folder.with_name(PART.format(folder.name))
    shutil.rmtree(part, ignore_errors=True)  # of a merge that was killed
    try:
        for study in studies:
            for cell in study.provenance["cells"]:
                _add(Store(study.folder), Store(part), cell, record["cells"][cell])
        write_json(part / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}.json", record)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _add(source: Store, goal: Store, cell: str, record: Record) -> None:
    """Refused if both have an image of one key, and not the same."""
    samples, there = source.samples(cell), goal.samples(cell)
    for key in samples.keys() & there.keys():
        if not same(source.image(cell, key), goal.image(cell, key)):
            what = f"{record['label']}, prompt {samples[key]['prompt']!r}, seed {samples[key]['seed']}"
            raise Refused(f"merge: {source.folder} has another image than the studies before it of {what}")
    for file in sorted(source.cell(cell).rglob("*")):
        place = file.relative_to(source.cell(cell))
        if file.is_dir() or file.name.startswith(".") or place.name in ("cell.json", "failures.jsonl"):
            continue
        if place.parts[0] != "samples" or (file.stem in samples and file.stem not in there):
            _link(file, goal.cell(cell) / place)
    goal.describe(cell, source.described(cell) | goal.described(cell) | {"label": record["label"]})
    for failure in source.failures(cell):
        if failure not in goal.failures(cell):
            goal.fail(cell, failure)


def same(a: Path, b: Path) -> bool:
    """To the last pixel, however they are packed."""
    if a.read_bytes() == b.read_bytes():
        return True
    x, y = pixels(a), pixels(b)
    return x.shape == y.shape and bool((x == y).all())


def _link(file: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    if goal.exists():
        return
    try:
        os.link(file, goal)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, goal)

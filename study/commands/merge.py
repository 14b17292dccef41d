"""merge=[a,b,...] name=NEW: merge studies of several machines, or several parts of a grid, into one.

Cells with the same id become one cell with the samples of all. A cell of another machine has another id and
its own baseline, so no speedup is across machines. The sources are unchanged; the new folder contains hard
links to their images if the file system supports them. Tables, plots and reports are made as for any study.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from os.path import expanduser
from pathlib import Path
from secrets import token_hex
from time import time

from fovea.study.commands.command import Command, root
from fovea.study.commands.merge_records import check_compatible, merged
from fovea.study.commands.run import MISSING, damaged, end, no_images, retry_on_damage, unavailable
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import validated
from fovea.study.config.schema import Settings
from fovea.study.files import write, write_json
from fovea.study.picture import Damaged, same
from fovea.study.plan.plan import cell_of, planned
from fovea.study.presence import at_work
from fovea.study.records import CellRecord, Finished
from fovea.study.run.progress import Progress
from fovea.study.store import Store
from fovea.study.stored import Record, Stored, find

KEPT = ("records", "focus", "traces", "found")  # folders of a cell that are copied besides its images
PART = ".{}.{}.merging"  # temporary folder: its final name and a random part
ABANDONED = 60.0  # seconds without activity after which a temporary folder counts as abandoned


def run(command: Command) -> int:
    given = command.allow("name", "results", "logger")
    results, name = command.results, command.option("name")
    if not name:
        raise Refused(f"{command.text}: the new study needs a name: name=NEW")
    validated(Settings, {"prompts": "", "name": name})
    studies = _studies(command, results)
    stores = [_store(command, study) for study in studies]
    if (folder := Path(expanduser(results)) / name).exists():
        raise Refused(f"name={name}: {folder} is there already; give another name")
    check_compatible(command.text, studies)
    record = merged(studies, command.arguments)
    logger = whole(load([text for text in given if root(text) == "logger"]))["logger"]
    plan = planned(folder, record, record["config"] | {"logger": logger})
    from fovea.study.report.report import report  # slow import: after the checks

    with Progress() as progress, _private(folder) as part:
        for note in unavailable(plan):
            progress.say(note)
        progress.say(f"nothing is generated: {len(plan.cells)} cells of {len(studies)} studies")
        store = Store(part)
        with store.at_work():
            for note in chain.from_iterable(damaged(plan, source, MISSING) for source in stores):
                progress.say(note)
            gather(studies, stores, part, record)
            tables, summary = retry_on_damage(lambda: report(plan, store, record), store, progress, MISSING)
        _publish(part, folder)
    sources = [str(study.folder) for study in studies]
    return end(plan, Store(folder), tables, summary | {"study": str(folder), "merged": sources})


@contextmanager
def _private(folder: Path) -> Iterator[Path]:
    """Create a folder for this process next to the final one; it is removed unless it was renamed to it."""
    for other in folder.parent.glob(PART.format(folder.name, "*")):
        _remove_abandoned(other)
    part = folder.with_name(PART.format(folder.name, token_hex(4)))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned(part: Path) -> None:
    """Remove what a killed merge has left, unless a process is at work on it."""
    with suppress(OSError):
        workers = at_work(part)
        last = max([part.stat().st_mtime, *(worker.last_seen for worker in workers)])
        if time() - last > ABANDONED and not any(worker.locked for worker in workers):
            shutil.rmtree(part)


def _publish(part: Path, folder: Path) -> None:
    """Rename the folder atomically: of several merges with one name, the first to finish has it."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        raise Refused(
            f"name={folder.name}: another merge has made {folder} meanwhile; give another name"
        ) from None


def _studies(command: Command, results: str) -> list[Stored]:
    found = [find(command.text, value, results) for value in command.folders()]
    if len({study.folder.resolve() for study in found}) < max(2, len(found)):
        raise Refused(f"{command.text}: give two or more different studies, merge=[results/A,results/B]")
    return found


def _store(command: Command, study: Stored) -> Store:
    """Return the store of a study. Raises Refused if it has no image that counts."""
    store = Store(study.folder)
    store.check()
    if not any(store.samples(cell) for cell in study.provenance["cells"]):
        raise Refused(f"{command.text}: {no_images(store)}; compare=[A,B] needs no images")
    return store


def gather(studies: Sequence[Stored], stores: Sequence[Store], folder: Path, record: Record) -> None:
    """Collect all cells in one folder, with a provenance record that a rescore can start from.

    stores: of the studies; images known to be damaged are left out.
    """
    for study, store in zip(studies, stores, strict=True):
        for cell in study.provenance["cells"]:
            _add(store, Store(folder), cell, record["cells"][cell])
    write_json(folder / "runs" / f"{Store(folder).session}.json", record)


def _add(source: Store, goal: Store, cell: str, record: Record) -> None:
    """Add a cell. Raises Refused if both studies have an image with the same key but different pixels."""
    mine, there = source.samples(cell), goal.samples(cell)
    for key in mine.keys() & there.keys():
        if not _same(source.image(cell, key), goal.image(cell, key)):
            what = f"{record['label']}, prompt {mine[key].prompt!r}, seed {mine[key].seed}"
            raise Refused(f"merge: {source.folder} has another image than the studies before it of {what}")
    for file in sorted(source.cell(cell).rglob("*")):
        place = file.relative_to(source.cell(cell))
        if file.is_file() and place.parts[0] in KEPT and place.name[0] != ".":
            (_add_lines if place.parts[0] == "records" else _link)(file, goal.cell(cell) / place)
    goal.describe(CellRecord.of(cell_of(cell, record)))
    own, known, now = map(_digests, (mine, there, goal.records(cell)))
    for key, digest in own.items():
        if digest == now[key] != known.get(key):  # if one image was compressed in two ways, the last record's
            goal.image(cell, key).unlink(missing_ok=True)
            _link(source.image(cell, key), goal.image(cell, key))
    goal.forget(cell)


def _add_lines(file: Path, goal: Path) -> None:
    """Add the records of a session. If they are there in part, from a copy of the study made while it ran,
    the missing lines are added. They are copied: a study that is still running writes more into its own."""
    own, there = (one.read_bytes().splitlines(keepends=True) if one.exists() else [] for one in (file, goal))
    known = {line for line in there if line.endswith(b"\n")}
    if more := [line for line in own if line not in known]:
        write(goal, b"".join([*(line for line in there if line in known), *more]))


def _digests(records: Finished) -> dict[str, str]:
    return dict(zip(records, records.column("sha256"), strict=True))


def _same(a: Path, b: Path) -> bool:
    try:
        return same(a, b)
    except Damaged as error:
        raise Refused(f"merge: {error}; a run of its study makes it again") from None


def _link(file: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    if goal.exists():
        return
    try:
        os.link(file, goal)
    except OSError:  # another file system, or no support for hard links
        shutil.copy2(file, goal)

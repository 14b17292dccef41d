"""merge=[a,b,...] name=NEW: studies of several machines, or several parts of a grid, as one.

Cells of one id are one cell with the samples of all. A cell of another machine has its own id, and its own
baseline: no speedup is across machines. The sources stay as they are; the new folder has hard links to their
images where the file system allows it. Tables, plots and reports are made as of any study."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os.path import expanduser
from pathlib import Path
from secrets import token_hex
from time import time

from fovea.study.commands.command import Command
from fovea.study.commands.merged import agree, merged
from fovea.study.commands.run import MISSING, damaged, end, readable, unavailable
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import validated
from fovea.study.config.schema import Settings
from fovea.study.files import write_json
from fovea.study.picture import Damaged, same
from fovea.study.plan.plan import cell_of, planned
from fovea.study.presence import at_work
from fovea.study.records import CellRecord, Finished
from fovea.study.run.progress import Progress
from fovea.study.store import Store
from fovea.study.stored import Record, Stored, find

KEPT = ("records", "focus", "traces", "found")  # folders of a cell, beside its images
PART = ".{}.{}.merging"  # the new folder, by its name and a random one, until all of it is there
ABANDONED = 60.0  # seconds after which a folder that nobody holds is a killed merge's


def run(command: Command) -> int:
    given = command.allow("name", "results", "logger")
    results, name = command.results, command.option("name")
    if not name:
        raise Refused(f"{command.text}: the new study needs a name: name=NEW")
    validated(Settings, {"prompts": "", "name": name})
    studies = _studies(command, results)
    if (folder := Path(expanduser(results)) / name).exists():
        raise Refused(f"name={name}: {folder} is there already; give another name")
    agree(command.text, studies)
    record = merged(studies, command.arguments)
    logger = whole(load([text for text in given if text.partition("=")[0].startswith("logger")]))["logger"]
    plan = planned(folder, record, record["config"] | {"logger": logger})
    from fovea.study.report.report import report  # seconds: nothing is refused from here on

    with Progress() as progress, _private(folder) as part:
        for note in unavailable(plan):
            progress.say(note)
        progress.say(f"nothing is generated: {len(plan.cells)} cells of {len(studies)} studies")
        store = Store(part)
        with store.at_work():
            gather(studies, part, record)
            for note in damaged(plan, store, MISSING):
                progress.say(note)
            tables, summary = readable(lambda: report(plan, store, record), store, progress, MISSING)
        _publish(part, folder)
    sources = [str(study.folder) for study in studies]
    return end(plan, Store(folder), tables, summary | {"study": str(folder), "merged": sources})


@contextmanager
def _private(folder: Path) -> Iterator[Path]:
    """A folder that is this process's alone, beside the one that it is to be; gone unless it became that."""
    for other in folder.parent.glob(PART.format(folder.name, "*")):
        _remove_abandoned(other)
    part = folder.with_name(PART.format(folder.name, token_hex(4)))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_abandoned(part: Path) -> None:
    """What a merge that was killed has left; at one that is under way somebody works."""
    with suppress(OSError):
        last = max([part.stat().st_mtime, *(worker.last_seen for worker in at_work(part))])
        if time() - last > ABANDONED:
            shutil.rmtree(part)


def _publish(part: Path, folder: Path) -> None:
    """In one stroke: of several merges under one name the first to be whole has it."""
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
    for study in found:
        Store(study.folder).check()
        if not any(Store(study.folder).samples(cell) for cell in study.provenance["cells"]):
            raise Refused(
                f"{command.text}: the images of {study.folder} are not here, only what was written of them; "
                "compare=[A,B] needs none"
            )
    return found


def gather(studies: Sequence[Stored], folder: Path, record: Record) -> None:
    """All cells in one folder, with the record that a rescore can start from."""
    for study in studies:
        for cell in study.provenance["cells"]:
            _add(Store(study.folder), Store(folder), cell, record["cells"][cell])
    write_json(folder / "runs" / f"{Store(folder).session}.json", record)


def _add(source: Store, goal: Store, cell: str, record: Record) -> None:
    """Refused if both have an image of one key, and not the same."""
    mine, there = source.samples(cell), goal.samples(cell)
    for key in mine.keys() & there.keys():
        if not _same(source.image(cell, key), goal.image(cell, key)):
            what = f"{record['label']}, prompt {mine[key].prompt!r}, seed {mine[key].seed}"
            raise Refused(f"merge: {source.folder} has another image than the studies before it of {what}")
    for file in sorted(source.cell(cell).rglob("*")):
        place = file.relative_to(source.cell(cell))
        if file.is_file() and place.parts[0] in KEPT and place.name[0] != ".":
            _link(file, goal.cell(cell) / place)
    goal.describe(CellRecord.of(cell_of(cell, record)))
    own, known, now = map(_digests, (mine, there, goal.records(cell)))
    for key, digest in own.items():
        if digest == now[key] != known.get(key):  # of one that was packed in two ways, the last record's
            goal.image(cell, key).unlink(missing_ok=True)
            _link(source.image(cell, key), goal.image(cell, key))
    goal.forget(cell)


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
    except OSError:  # another file system, or one without links
        shutil.copy2(file, goal)

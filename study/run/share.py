"""Work on a study that other processes may work on too: one shard after another, each on lease."""

import time
from collections.abc import Collection, Iterator
from math import inf

from fovea.study.plan.plan import Plan, Shard, shards
from fovea.study.presence import WorkerInfo, at_work
from fovea.study.run.events import Event, Joined, Message, Remaining
from fovea.study.run.execute import Runner
from fovea.study.run.provenance import check_worker, note_worker
from fovea.study.store import Store
from fovea.study.workers import Worker

PAUSE = 0.5  # seconds between checks of shards held by others
TELL = 60.0  # seconds of waiting for them until that is told, once


def join(plan: Plan, store: Store, session: str) -> Iterator[Event]:
    """Join a study as a process started by a launcher. session: of the process that started it. Raises
    Refused if this process would make other cells."""
    check_worker(plan)
    with store.at_work(plan.digest) as worker:
        yield Joined(worker.id)
        note_worker(plan, store, session)
        yield from share(plan, store, worker)


def share(plan: Plan, store: Store, worker: Worker) -> Iterator[Event]:
    """Make shards that nobody else holds until all are made or have failed here, or time_limit is over.
    Shards held by others are waited for, so that the study is complete when this returns."""
    with Runner(plan, store) as runner:
        cells = selected_cells(plan, store)
        work = [shard.only(cells) for shard in shards(plan)]
        remaining = _remaining(plan, store, runner, cells)
        yield Remaining(remaining, _count_active(worker))
        idle_since = time.monotonic()
        while any(remaining.values()) and not runner.out_of_time:
            worked = False
            for shard in work:
                lacking = store.lacking(set(shard.cells) - runner.failed, shard.samples)
                if lacking and not runner.out_of_time and worker.take(shard.name):
                    worked = True
                    yield from _make(plan, store, runner, worker, shard)
            if worked:
                idle_since = time.monotonic()
            else:
                time.sleep(PAUSE)
            worker.clear()
            worker.check()
            remaining = _remaining(plan, store, runner, cells)
            yield Remaining(remaining, _count_active(worker))
            if time.monotonic() - idle_since > TELL and (others := _others_with_shards(worker)):
                yield _waiting(others, sum(remaining.values()))
                idle_since = inf
        if runner.out_of_time and any(remaining.values()):
            over = f"time_limit={plan.settings.time_limit:g} s are over"
            yield Message(f"{over}: {sum(remaining.values())} images are left to make")


def selected_cells(plan: Plan, store: Store) -> list[str]:
    """Return the ids of the cells to make: all, or with retry=failed those that have failed."""
    cells = [cell.id for cell in plan.cells]
    if plan.settings.retry is None:
        return cells
    return [cell for cell in cells if store.samples(cell).failures]


def _make(plan: Plan, store: Store, runner: Runner, worker: Worker, shard: Shard) -> Iterator[Event]:
    """Make a shard whose lease this worker holds; what others already made of it is kept."""
    try:
        yield Remaining(_remaining(plan, store, runner, shard.cells), _count_active(worker))
        for event in runner.run(shard.cells, shard.samples):
            worker.check()
            yield event
    finally:
        worker.release(shard.name)


def _remaining(plan: Plan, store: Store, runner: Runner, cells: Collection[str]) -> dict[str, int]:
    """Return the number of images that each cell still lacks; 0 for a cell that has failed here."""
    return dict.fromkeys(cells, 0) | store.count_lacking(set(cells) - runner.failed, plan.keys)


def _count_active(worker: Worker) -> int:
    """Return the number of processes with shards on lease, this one included."""
    return 1 + len(_others_with_shards(worker))


def _others_with_shards(worker: Worker) -> list[WorkerInfo]:
    return [other for other in at_work(worker.study) if other.shards and other.id != worker.id]


def _waiting(others: list[WorkerInfo], images: int) -> Message:
    names = ", ".join(map(str, others))
    left = f"waiting for {names} to make the last {images} images"
    return Message(f"{left}; should it hang, end it, and they are made here")

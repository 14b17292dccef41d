"""Work on a study that others may work on, too: one shard after the other, each on lease."""

import time
from collections.abc import Collection, Iterator

from fovea.study.plan.plan import Plan, Shard, shards
from fovea.study.presence import at_work
from fovea.study.run.events import Event, Joined, Left, Said, Started
from fovea.study.run.execute import Runner, pending
from fovea.study.run.provenance import check_worker, note_worker
from fovea.study.store import Store
from fovea.study.workers import Worker

PAUSE = 0.5  # seconds between looks at what others have on lease


def join(plan: Plan, store: Store, session: str) -> Iterator[Event]:
    """Shares in a study as a process that a launcher has started. session: of the process that has. Refused
    where it would make other cells."""
    check_worker(plan)
    with store.at_work(plan.digest) as worker:
        yield Joined(worker.id)
        note_worker(plan, store, session)
        yield from share(plan, store, worker)


def share(plan: Plan, store: Store, worker: Worker) -> Iterator[Event]:
    """Makes shards that nobody else has, until all are made or have failed here, or until time_limit is over.
    Others' are waited for: else the study is whole when this ends."""
    with Runner(plan, store) as runner:
        every = asked(plan, store)
        work = [shard.only(every) for shard in shards(plan)]
        left = _left(plan, store, runner, every)
        yield Started(left)
        while any(left.values()) and not runner.over:
            worked = False
            for shard in work:
                if not runner.over and _lacks(plan, store, runner, shard) and worker.take(shard.name):
                    worked = True
                    yield from _make(plan, store, runner, worker, shard)
            if not worked:
                time.sleep(PAUSE)
            worker.clear()
            worker.check()
            left = _left(plan, store, runner, every)
            yield Left(left, _makers(worker))
        if runner.over and any(left.values()):
            over = f"time_limit={plan.settings.time_limit:g} s are over"
            yield Said(f"{over}: {sum(left.values())} images are left to make")


def asked(plan: Plan, store: Store) -> list[str]:
    """The cells that are to be made, by id: all, or with retry=failed those that have failed."""
    every = [cell.id for cell in plan.cells]
    if plan.settings.retry is None:
        return every
    return [cell for cell in every if store.samples(cell).failures]


def _make(plan: Plan, store: Store, runner: Runner, worker: Worker, shard: Shard) -> Iterator[Event]:
    """One that is this worker's. What others made of it before counts."""
    try:
        yield Left(_left(plan, store, runner, shard.cells), _makers(worker))
        for event in runner.run(shard.cells, shard.samples):
            worker.check()
            yield event
    finally:
        worker.release(shard.name)


def _left(plan: Plan, store: Store, runner: Runner, cells: Collection[str]) -> dict[str, int]:
    """How many images each cell lacks by now; none of one that has failed here."""
    store.refresh(cells)
    keys, chosen = [s.key for s in plan.samples], [cell for cell in plan.cells if cell.id in cells]
    lacking = pending(store, chosen, keys)
    return {c.id: 0 if c.id in runner.failed else len(lacking.get(c.id, ())) for c in chosen}


def _makers(worker: Worker) -> int:
    """How many have work on lease, or will."""
    return 1 + sum(bool(other.shards) for other in at_work(worker.study) if other.id != worker.id)


def _lacks(plan: Plan, store: Store, runner: Runner, shard: Shard) -> bool:
    chosen = [cell for cell in plan.cells if cell.id in shard.cells and cell.id not in runner.failed]
    return bool(pending(store, chosen, shard.samples))

"""Several processes make one study: every image once, each as one process makes it, whoever is killed."""

import os
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest

from fovea.study.config.errors import Refused
from fovea.study.plan.plan import make as planned
from fovea.study.plan.plan import shards
from fovea.study.record_files import parsed
from fovea.study.records import BatchRecord
from fovea.study.run.events import Made, Message, Remaining
from fovea.study.run.provenance import check_worker
from fovea.study.run.share import share
from fovea.study.store import Store
from tests.study import faulty


@pytest.fixture(scope="module")
def plan(small):
    words = [word for word in small if not word.startswith(("n=", "batch=", "sweep.", "prompts="))]
    return planned([*words, "n=8", "batch=1", "sweep.grid.method.ratio=[0.25]", "sweep.curve=null"])


def made(store, plan) -> dict:
    """Every image by cell and key: its pixels, and what was counted of it."""
    found = {(c.id, key): r for c in plan.cells for key, r in store.samples(c.id).items()}
    return {which: (r.sha256, r.noise, r.tokens, r.blocks, r.flops) for which, r in found.items()}


def recorded(store) -> Counter:
    """How often each image was stored, by whichever process."""
    found: Counter = Counter()
    for file in store.folder.glob("cells/*/records/*.jsonl"):
        cell = file.parents[1].name
        records = [parsed(line, cell) for line in file.read_bytes().splitlines()]
        batches = [r for r in records if isinstance(r, BatchRecord)]
        found.update((cell, image.key) for batch in batches for image in batch.images)
    return found


def work(plan, folder, begin, dies=None):
    """A process that shares in a plan, with the others at once; it kills itself after so many images."""
    store, images = Store(folder), 0
    with store.at_work(plan.digest) as worker:
        begin.wait()
        for event in share(plan, store, worker):
            images += isinstance(event, Made)
            if images == dies:
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """By one process."""
    store = Store(tmp_path_factory.mktemp("whole"))
    with store.at_work(plan.digest) as worker:
        told = list(share(plan, store, worker))
    lacking = {cell.id: 8 for cell in plan.cells}
    assert told[0] == Remaining(lacking, 1)
    assert told[1] == Remaining(lacking, 1)
    assert told[-1] == Remaining(dict.fromkeys(lacking, 0), 1)
    return made(store, plan)


def test_shards_are_all_of_a_study_in_whole_rounds_there_and_back(plan):
    more = replace(plan, samples=[replace(s, key=f"{i}") for i in range(1001) for s in plan.samples[:1]])
    for one in (plan, more):
        found = shards(one)
        assert 1 < len(found) <= 128
        assert {shard.cells for shard in found} == {tuple(cell.id for cell in one.cells)}
        assert [key for shard in found for key in shard.samples] == [s.key for s in one.samples]
        assert all(len(shard.samples) % 2 == 0 for shard in found[:-1])
        assert len({shard.name for shard in found}) == len(found)


@pytest.mark.parametrize("killed", [[None, 3], [None, None, 1, 5]])
def test_of_several_processes_some_killed_every_image_is_made_once(plan, whole, tmp_path, killed):
    begin = faulty.barrier(len(killed))
    processes = [faulty.started(work, plan, tmp_path, begin, dies) for dies in killed]
    codes = [faulty.ended(process) for process in processes]
    assert all(code == 0 or dies for code, dies in zip(codes, killed, strict=True))
    assert codes[0] == 0
    store = Store(tmp_path)
    assert made(store, plan) == whole
    assert set(recorded(store).values()) == {1}
    assert not (tmp_path / ".workers").exists()
    sessions = {b.session for cell in plan.cells for b in store.samples(cell.id).timings}
    assert len(sessions) > 1
    for cell in plan.cells:  # timed by one process what is compared, but for batches that a kill cut in two
        dense = {(b.id, b.session) for b in store.samples(cell.dense).timings}
        apart = {(b.id, b.session) for b in store.samples(cell.id).timings} - dense
        assert len(apart) <= len(killed) - killed.count(None)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("packages", {"torch": "0.1"}),
        ("code", "of before"),
        ("weights", "of before"),
        ("files", {"upscaler": "of before"}),  # that are not there
    ],
)
def test_a_worker_that_would_make_another_cell_is_refused(plan, what, other):
    """As on a node with packages of its own."""
    check_worker(plan)
    cells = [replace(cell, identity=cell.identity | {what: other}) for cell in plan.cells]
    with pytest.raises(Refused, match=rf"would make another cell \({what}: .*, planned with .*(before|0\.1)"):
        check_worker(replace(plan, cells=cells))


def test_what_fails_in_one_process_is_waited_for_by_none(plan, tmp_path):
    """Nor does it keep the others' from being made."""
    broken = replace(plan.cells[1], method=plan.cells[1].method | {"start": 99})
    partly = replace(plan, cells=[plan.cells[0], broken], samples=plan.samples[:4])
    begin = faulty.barrier(2)
    processes = [faulty.started(work, partly, tmp_path, begin) for _ in range(2)]
    assert [faulty.ended(process) for process in processes] == [0, 0]
    assert len(Store(tmp_path).samples(broken.id).failures) == 2
    assert len(Store(tmp_path).samples(plan.cells[0].id)) == 4


def test_who_waits_for_another_s_shard_says_so_once(plan, tmp_path, monkeypatch):
    """The other process holds the first shard, does nothing, and is ended once this one has told that."""
    monkeypatch.setattr("fovea.study.run.share.TELL", 0.0)
    store = Store(tmp_path / "study")
    held = shards(plan)[0].name
    idle = faulty.started(hold, plan, store.folder, held)
    with store.at_work(plan.digest) as worker:
        while not any(held in other.shards for other in worker.others()):
            time.sleep(0.1)
        told = []
        for event in share(plan, store, worker):
            if isinstance(event, Message) and "waiting for" in event.text:
                told.append(event.text)
                idle.kill()
    assert [f"waiting for process {idle.pid} on " in text for text in told] == [True]
    assert len(made(store, plan)) == len(plan.cells) * len(plan.samples)


def hold(plan, folder, shard):
    """A process that takes a shard and hangs."""
    with Store(folder).at_work(plan.digest) as worker:
        assert worker.take(shard)
        time.sleep(600)


def test_when_the_time_is_over_what_is_finished_stays_and_the_rest_is_told(plan, tmp_path, monkeypatch):
    """The clock stands until three batches are made, and is far ahead from then on. The third is of a method
    whose dense run would have come after it: that is still made, or nothing could be said of the third."""
    store, clock = Store(tmp_path), [0.0]
    monkeypatch.setattr("fovea.study.run.execute.monotonic", lambda: clock[0])
    hurried = replace(plan, settings=replace(plan.settings, time_limit=60.0, traces=0))
    told, images = [], 0
    with store.at_work(hurried.digest) as worker:
        for event in share(hurried, store, worker):
            told.append(event)
            images += isinstance(event, Made)
            clock[0] = 61.0 if images >= 3 else 0.0
    lacking = len(plan.cells) * 8 - 4
    assert told[-1] == Message(f"time_limit=60 s are over: {lacking} images are left to make")
    assert len(made(store, plan)) == images == 4
    dense, method = (set(store.samples(cell.id)) for cell in plan.cells)
    assert method == dense
    assert all(store.samples(cell.id).flops is None for cell in plan.cells)

"""A shard of a study: what it takes, what it tells, and what becomes of a method that does harm."""

import asyncio
import pickle
import signal
from dataclasses import replace

import pytest
import torch

from fovea.methods import RAS, Baseline
from fovea.models import adapt
from fovea.study.analysis.speed import pairs, seconds, speed
from fovea.study.config.instantiate import instantiate
from fovea.study.files import Unwritable
from fovea.study.plan.plan import make as planned
from fovea.study.run import execute
from fovea.study.run.events import Failed, Made, Message, WarmedUp
from fovea.study.run.execute import Runner
from fovea.study.run.generate import ClockStopped, WrongShape, generate_batch
from fovea.study.store import Store


@pytest.fixture(scope="module")
def plan(small):
    return planned(small)


@pytest.fixture(scope="module")
def model(plan):
    with adapt(instantiate(plan.cells[0].model, "model", "fovea.models").load()) as found:
        yield found


def run(plan, store, cells, samples):
    with Runner(plan, store) as runner:
        return list(runner.run(cells, samples))


def shard(plan, folder, cells, samples):
    """Everything goes there and back as another process would have it."""
    plan, store, cells, samples = pickle.loads(pickle.dumps((plan, Store(folder), cells, samples)))
    return [pickle.loads(pickle.dumps(event)) for event in run(plan, store, cells, samples)]


def test_shards_of_two_processes_are_one_study(plan, tmp_path):
    """By cells and by samples, in whatever order: nothing twice, and each image as it is in one go."""
    dense, *others = plan.cells
    keys = [s.key for s in plan.samples]
    told = shard(plan, tmp_path, [others[0].id], keys[2:])
    assert isinstance(told[0], Message)
    assert [event.cell for event in told if isinstance(event, WarmedUp)] == [others[0].id, dense.id]
    assert [(e.cell, e.label, e.images) for e in told if isinstance(e, Made)] == [
        (others[0].id, others[0].label, 1)
    ]
    shard(plan, tmp_path, [dense.id, others[0].id], keys)
    store = Store(tmp_path)
    first, second = store.samples(others[0].id), store.samples(dense.id)
    assert set(first) == set(second) == set(keys)
    assert [batch.size for batch in second.timings] == [1, 2, 1]  # the first beside what it is compared with
    assert len({batch.session for batch in second.timings}) == 2
    assert len(list(store.cell(dense.id).glob("records/*.jsonl"))) == 2
    assert shard(plan, tmp_path, [dense.id, others[0].id], keys) == []
    shard(plan, tmp_path / "whole", [others[0].id], keys)
    whole = Store(tmp_path / "whole").samples(others[0].id)
    assert {key: whole[key].sha256 for key in keys} == {key: first[key].sha256 for key in keys}


class Silent(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("\ud800\x1b[31m" + "x" * 5_000_000), "RuntimeError: \\ud800\\x1b[31mxxx"),
        (Silent(), "Silent: Silent, whose text cannot be had: ValueError"),
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit: GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError: CancelledError"),
        (torch.OutOfMemoryError("CUDA out of memory"), "a smaller batch=... needs less memory"),
        (OSError(28, "No space left on device", "of_the_method"), "OSError: [Errno 28] No space left"),
    ],
)
def test_whatever_a_method_raises_is_its_cells_failure(plan, tmp_path, error, said):
    def fails():
        raise error

    cell, store = plan.cells[1], Store(tmp_path)
    work = Runner(plan, store)
    (event,) = work.guarded(cell, fails)
    assert isinstance(event, Failed)
    assert event.why == f"{(kept := store.samples(cell.id).failures[0]).type}: {kept.message}"
    assert said in event.why
    assert len(kept.message) < 2_100
    assert 0 < len(kept.traceback) < 21_000
    assert work.failed == {cell.id}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Unwritable("x cannot be written")])
def test_what_stops_everybody_is_no_cells_failure(plan, tmp_path, error):
    def fails():
        raise error

    with pytest.raises(type(error)):
        list(Runner(plan, Store(tmp_path)).guarded(plan.cells[0], fails))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_made_in_halves_and_times_nothing(
    plan, tmp_path, monkeypatch, error
):
    cell, keys, calls = plan.cells[0], [s.key for s in plan.samples], []

    def short(model, method, cell, batch):
        calls.append(len(batch))
        if len(batch) > 1:
            raise error
        return generate_batch(model, method, cell, batch)

    monkeypatch.setattr(execute, "generate_batch", short)
    store = Store(tmp_path)
    told = run(plan, store, [cell.id], keys)
    assert [event for event in told if isinstance(event, Failed)] == []
    assert calls == [2, 1, 1, 1, 1]  # the warm-up whole, then halved; three images
    found = store.samples(cell.id)
    assert set(found) == set(keys)
    assert seconds(found) is None
    assert pairs(found, found) == {}
    assert (spoken := speed(found, None)) is not None
    assert (spoken.halved, spoken.repetitions_throttled) == (3, 0)


def test_a_baseline_is_timed_on_its_own_model_and_not_on_its_siblings(small, tmp_path):
    """One run of dense, and FLOPs and traces of its own: the sibling's pipeline would give others."""
    own = ("n=1", "batch=1", "sweep=none", "sweep.curve=null", "cost=flops", "sibling=flux_tiny")
    given = [key for key in small if key.split("=")[0] not in ("n", "batch", "sweep.curve")]
    plan = planned([key for key in given if "grid" not in key] + [*own])
    dense, method, sibling = plan.cells
    runner = Runner(plan, Store(tmp_path))
    assert runner.finished_baselines([method]) == [dense]
    assert runner.finished_baselines([sibling]) == []
    run(plan, Store(tmp_path), [dense.id, sibling.id], plan.keys)
    store = Store(tmp_path)
    made, rival = store.samples(dense.id), store.samples(sibling.id)
    assert len(made.timings) == len(rival.timings) == 1
    assert made.flops.closed == made.column("flops").sum() != rival.flops.closed


def test_where_costs_are_flops_one_image_is_the_warm_up(small, tmp_path):
    plan, store = planned([*small, "cost=flops"]), Store(tmp_path)
    cell = plan.cells[0]
    run(plan, store, [cell.id], plan.keys)
    found = store.samples(cell.id)
    assert found.warm_up is not None
    assert found.warm_up.size == 1
    told = speed(found, None)
    assert told is not None
    assert (told.cold_start_seconds, told.cold_start_images) == (
        None,
        1,
    )  # of one image, where the usual call is of two


def test_what_no_half_of_a_batch_holds_either_is_a_failure(plan, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(execute, "generate_batch", full)
    cell = plan.cells[0]
    told = run(plan, Store(tmp_path), [cell.id], plan.keys)
    assert [event.cell for event in told if isinstance(event, Failed)] == [cell.id]


def test_a_call_that_takes_longer_than_it_may_is_its_cells_failure(plan, tmp_path):
    def endless():
        while True:
            pass

    cell, store = plan.cells[1], Store(tmp_path)
    hurried = Runner(replace(plan, settings=replace(plan.settings, cell_timeout=0.2)), store)
    (event,) = hurried.guarded(cell, endless)
    assert isinstance(event, Failed)
    assert "TimedOut: a call took longer than cell_timeout=0.2 s" in event.why
    assert "endless" in store.samples(cell.id).failures[0].traceback
    assert list(hurried.guarded(plan.cells[0], list)) == []
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_weights_are_asked_for_where_they_are_used(plan, tmp_path):
    cells = [replace(cell, model=cell.model | {"path": str(tmp_path / "none")}) for cell in plan.cells]
    ids, keys = [cell.id for cell in cells], [s.key for s in plan.samples]
    told = shard(replace(plan, cells=cells), tmp_path, ids, keys)
    assert [event.cell for event in told if isinstance(event, Failed)] == ids
    assert all("none" in event.why for event in told if isinstance(event, Failed))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: torch.cat([x, x]),
        lambda x: x[:1],
        lambda x: x[:, :-1],
        lambda x: list(x),
        lambda x: None,
    ],
)
def test_a_method_that_gives_other_images_than_it_was_asked_for_fails(plan, model, wrong):
    method = Baseline(plan.cells[0].model["steps"])
    with pytest.raises(WrongShape, match="not latents of shape"):
        generate_batch(
            model, lambda flow, on_step: wrong(method(flow, on_step)), plan.cells[0], plan.samples[:2]
        )


def test_a_clock_that_stands_still_measures_nothing(plan, model, monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 1.0)
    with pytest.raises(ClockStopped, match="0 s for 2 images"):
        generate_batch(model, RAS(start=2), plan.cells[1], plan.samples[:2])

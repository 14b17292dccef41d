"""What is paired with what: batches of two cells, images of a method and of the dense run."""

import pytest

from fovea.study.analysis.row import no_op, speedup
from fovea.study.analysis.speed import batches, seconds, speed
from fovea.study.plan.cells import Cell
from fovea.study.records import FlopsRecord
from fovea.study.store import Store
from tests.study.made_up import add, image

DENSE, FAST = "d", "f"


def cell(off=False):
    return Cell(FAST, "fast", "method", "fast", {}, {"_target_": "fovea.methods.X"}, {}, DENSE, off, {})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def timed(store, name, **times):
    """Batches by id: how many images, in how many seconds."""
    for batch, (size, took) in times.items():
        add(store, name, {f"{batch}{i}".ljust(16, "0"): image(i) for i in range(size)}, batch, took)
    return store.samples(name)


def test_seconds_are_of_full_batches_once_each(store):
    records = timed(store, DENSE, a=(2, 4.0), b=(2, 8.0), c=(1, 9.0))
    assert set(batches(records)) == {"a", "b"}
    assert seconds(records).value == 3.0


def test_speedup_pairs_batches(store):
    dense = timed(store, DENSE, a=(2, 4.0), b=(2, 80.0), c=(2, 1.0))
    found = speedup(dense, timed(store, FAST, b=(2, 20.0), a=(2, 2.0)))
    assert (found.low, found.value, found.high) == (2.0, 3.0, 4.0)
    assert speedup(dense, store.samples("nothing")) is None


def test_one_repetition_has_a_speedup_without_an_interval(store):
    found = speedup(timed(store, DENSE, a=(2, 4.0)), timed(store, FAST, a=(2, 2.0)))
    assert (found.value, found.level) == (2.0, 0.0)


def test_a_cell_is_paired_with_the_dense_batches_of_its_own_run(store):
    """The next day the machine is twice as slow, and the dense batch is timed again beside the new cell."""
    timed(store, DENSE, a=(2, 4.0))
    timed(store, "early", a=(2, 2.0))
    later = Store(store.folder)
    add(later, DENSE, {}, "a", 8.0, size=2)
    timed(later, FAST, a=(2, 1.0))
    dense = later.samples(DENSE)
    assert speedup(dense, later.samples("early")).value == 2.0
    assert speedup(dense, later.samples(FAST)).value == 8.0
    assert speed(later.samples("early"), dense).apart == speed(later.samples(FAST), dense).apart == 0


def test_a_speedup_across_sessions_is_marked_and_across_devices_is_none(store):
    dense, last = (
        timed(store, DENSE, a=(2, 4.0), b=(2, 4.0)),
        {f"b{i}".ljust(16, "0"): image(i) for i in (0, 1)},
    )
    timed(store, FAST, a=(2, 2.0))
    add(store, FAST, last, "b", 1.0, session="x")
    assert speed(store.samples(FAST), dense).apart == 1
    assert speedup(dense, store.samples(FAST)).value == 3.0
    add(store, FAST, last, "b", 1.0, device="x")
    assert speed(store.samples(FAST), dense).apart == 1
    timed(store, "elsewhere", c=(2, 2.0))
    assert speedup(dense, store.samples("elsewhere")) is None


@pytest.mark.parametrize(
    ("off", "tokens", "seed", "told"),
    [(False, 24.0, 0, True), (False, 20.0, 0, False), (True, 24.0, 0, False), (False, 24.0, 1, False)],
)
def test_a_no_op_skips_nothing_and_has_the_dense_images(store, off, tokens, seed, told):
    """Another solver at full steps skips nothing either: its images are others."""
    add(store, DENSE, {"a" * 16: image(0)})
    add(store, FAST, {"a" * 16: image(seed)}, tokens=tokens)
    assert bool(no_op(cell(off), store.samples(DENSE), store.samples(FAST))) == told


def test_a_no_op_tells_the_threshold_that_would_skip(store):
    for name in (DENSE, FAST):
        add(store, name, {"a" * 16: image(0)}, tokens=24.0)
    store.append(FlopsRecord(cell=FAST, images=2, counted=4, closed=4, least=0.07312))
    told = no_op(cell(), store.samples(DENSE), store.samples(FAST))
    assert told.endswith("on its first images (n=2) something is at a threshold above 0.0731")

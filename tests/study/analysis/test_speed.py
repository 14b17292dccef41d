"""A speedup is a ratio of times taken side by side."""

import pytest

from fovea.study.analysis.row import relative, speedup
from fovea.study.analysis.speed import batches, break_even, pairs, speed
from fovea.study.store import Store
from tests.study.made_up import add, image

FIRST, SECOND = ("a" * 16, "b" * 16), ("c" * 16, "d" * 16)
DENSE, METHOD = "dense", "method"


def timed(store, cell, seconds, keys=FIRST, **other):
    add(store, cell, {key: image() for key in keys}, keys[0][:12] if keys else "a" * 12, seconds, **other)


@pytest.fixture
def folder(tmp_path):
    """Two batches of the dense run in one session, of a method in a later one."""
    first, second = Store(tmp_path), Store(tmp_path)
    for keys in (FIRST, SECOND):
        timed(first, DENSE, 4.0, keys)
        timed(second, METHOD, 2.0, keys)
    return tmp_path


def read(folder):
    store = Store(folder)
    return store.samples(DENSE), store.samples(METHOD)


def test_calls_of_another_session_are_paired_and_counted(folder):
    dense, method = read(folder)
    assert speedup(dense, method).value == 2.0
    assert (speed(method, dense).apart, speed(method, dense).elsewhen) == (2, 0)
    assert speed(dense, None).apart == 0


def test_a_dense_call_of_the_same_session_is_the_one_that_counts(folder):
    third = Store(folder)
    timed(third, METHOD, 1.0)
    add(third, DENSE, {}, "a" * 12, 3.0, size=2)
    timed(Store(folder), DENSE, 9.0)
    dense, method = read(folder)
    assert relative(dense, method, "time") == {"a" * 12: 1 / 3, "c" * 12: 0.5}
    assert speed(method, dense).apart == 1
    assert speed(method, dense).elsewhen == 1  # the dense time that is shown is the last
    assert batches(dense)["a" * 12].seconds == 9.0


def test_devices_do_not_pair_and_throttled_calls_do_not_count(folder):
    timed(Store(folder), METHOD, 1.0, device="another")
    assert set(relative(*read(folder), "time").values()) == {0.5}
    assert speed(read(folder)[1], None).devices == ("a processor", "another")
    hot = Store(folder)
    timed(hot, METHOD, 1.0, SECOND, state={"throttled": True})
    timed(hot, DENSE, 1.0, SECOND, state={"throttled": True})
    assert set(relative(*read(folder), "time").values()) == {0.5}
    other = Store(folder)
    timed(other, "elsewhere", 1.0, device="another")
    assert pairs(read(folder)[0], Store(folder).samples("elsewhere")) == {}


def test_a_peak_since_the_start_is_known_as_one_unless_it_is_of_a_gpu(tmp_path):
    for cell, memory, told in (("cpu", 7, True), ("gpu", 3, False)):
        add(Store(tmp_path), cell, {"k": image()}, memory=memory, memory_process=7, memory_since_start=True)
        found = speed(Store(tmp_path).samples(cell), None)
        assert found is not None
        assert found.memory_since_start == told


def test_a_slow_first_call_pays_off_by_what_is_saved():
    assert break_even(10.0, 2.0, 1.0) == 10
    assert break_even(0.1, 2.0, 1.0) == 1
    assert break_even(-0.1, 2.0, 1.0) == 0
    assert break_even(10.0, 1.0, 1.0) is None

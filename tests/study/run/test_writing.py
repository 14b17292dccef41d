"""One batch is written while the next is made, in order, and no error is lost."""

import threading

import pytest

from fovea.study.files import Unwritable
from fovea.study.run.writing import Writing


def test_one_is_written_beside_what_follows_and_the_next_waits_for_it():
    writing, go, done = Writing(), threading.Event(), []

    def first():
        assert go.wait(60)
        done.append(1)

    writing(first, beside=True)
    assert done == []  # what follows goes on meanwhile
    threading.Timer(0.05, go.set).start()
    writing(lambda: done.append(2), beside=True)
    assert done[0] == 1
    writing.wait()
    assert done == [1, 2]
    writing.close()


def test_at_once_where_it_is_not_beside():
    writing, where = Writing(), []
    writing(lambda: where.append(threading.current_thread()), beside=False)
    assert where == [threading.current_thread()]
    writing.close()


@pytest.mark.parametrize("ask", [lambda writing: writing.wait(), lambda writing: writing(print, beside=True)])
def test_what_it_raises_is_raised_once_by_whoever_asks_next(ask):
    def full():
        raise Unwritable("x cannot be written")

    writing = Writing()
    writing(full, beside=True)
    with pytest.raises(Unwritable):
        ask(writing)
    writing.wait()
    writing.close()

"""One batch is written while the next is made, in order, and no error is lost."""

import threading

import pytest

from fovea.study.files import Unwritable
from fovea.study.run.writing import BackgroundWriter


def test_one_is_written_beside_what_follows_and_the_next_waits_for_it():
    writing, go, done = BackgroundWriter(), threading.Event(), []

    def first():
        assert go.wait(60)
        done.append(1)

    writing(first, background=True)
    assert done == []  # what follows goes on meanwhile
    threading.Timer(0.05, go.set).start()
    writing(lambda: done.append(2), background=True)
    assert done[0] == 1
    writing.wait()
    assert done == [1, 2]
    writing.close()


def test_at_once_where_it_is_not_beside():
    writing, where = BackgroundWriter(), []
    writing(lambda: where.append(threading.current_thread()), background=False)
    assert where == [threading.current_thread()]
    writing.close()


@pytest.mark.parametrize(
    "ask", [lambda writing: writing.wait(), lambda writing: writing(print, background=True)]
)
def test_what_it_raises_is_raised_once_by_whoever_asks_next(ask):
    def full():
        raise Unwritable("x cannot be written")

    writing = BackgroundWriter()
    writing(full, background=True)
    with pytest.raises(Unwritable):
        ask(writing)
    writing.wait()
    writing.close()

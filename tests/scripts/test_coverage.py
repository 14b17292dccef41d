"""The simulation of coverage, on few runs, four of whose standard errors are .07."""

import pytest

from scripts.coverage import CASES, covered, table

RUNS = 150


@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_what_they_promise(name):
    assert covered(CASES[name], 24, 1, RUNS) >= 0.88


def test_the_table_names_each_setting():
    lines = list(table(2, only="mean"))
    assert len(lines) == 5
    assert lines[1].startswith("mean")

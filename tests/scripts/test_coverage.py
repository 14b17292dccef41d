"""The simulation of coverage, on few runs, four of whose standard errors are .07."""

import re
from pathlib import Path

import pytest

from scripts.coverage import CASES, SHORT, covered, table

RUNS = 150
PAGE = (Path(__file__).parents[2] / "docs" / "running.md").read_text("utf-8")


@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_what_they_promise(name):
    assert covered(CASES[name], 24, 1, RUNS) >= 0.88


def test_the_page_has_every_kind_of_interval_and_all_hold():
    table = [line for line in PAGE.splitlines() if re.search(r"\| \**\.\d{3}", line)]
    lines = [line.strip("| ").split(" | ") for line in table]
    shares = {name: [float(x) for x in rest] for name, *rest in lines}
    assert list(shares) == [*CASES, *SHORT]
    beyond = {name for name, found in shares.items() if not 0.93 <= min(found) <= max(found) <= 0.97}
    assert beyond == set(SHORT)
    lowest = min(found[0] for name, found in shares.items() if name in SHORT)
    assert f"{lowest:.3f}".removeprefix("0") in PAGE.partition("**Differences and gains in decibels**")[2]


def test_the_table_names_each_setting():
    lines = list(table(2, only="mean"))
    assert len(lines) == 1 + 4 * len([name for name in CASES if "mean" in name])
    assert lines[1].startswith("mean")

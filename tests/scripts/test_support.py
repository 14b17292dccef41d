"""docs/support.md says what the code does: all of its rows are there, and some are measured anew."""

import pytest

from scripts.support import TABLE, elsewhere
from tests.methods.test_contract import METHODS
from tests.pipelines import PIPELINES


def tables():
    """Title -> family -> method -> cell."""
    found = {}
    for part in TABLE.read_text().split("\n## ")[1:]:
        title, *lines = part.strip().splitlines()
        (_, *families), _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")
        )
        cells = {row[0].strip("`"): row[1:] for row in rows}
        found[title] = {f: {row: own[i] for row, own in cells.items()} for i, f in enumerate(families)}
    return found


def test_every_method_and_family_is_there():
    assert set(tables()) == {"Here", "diffusers' hooks", "cache-dit"}
    for by_family in tables().values():
        assert list(by_family) == list(PIPELINES)
    assert all(set(methods) == set(METHODS) for methods in tables()["Here"].values())


def test_every_method_here_runs_on_every_family():
    assert {cell for methods in tables()["Here"].values() for cell in methods.values()} == {"runs"}


@pytest.mark.parametrize("family", ["sd3", "lumina", "qwen"])
def test_cells_are_what_is_measured(family):
    assert elsewhere(family) == {
        "diffusers": tables()["diffusers' hooks"][family],
        "cache-dit": tables()["cache-dit"][family],
    }

"""The committed matrix, held to the studies' images."""

from pathlib import Path

import pytest

from fovea.study.stored import Stored
from scripts.matrix import PARTS, gain_text, markdown, read, short_name

FOLDER = Path(__file__).parents[2] / "results" / "embedded"


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "matrix-flux").symlink_to(FOLDER / "matrix-flux")
    return read(folder, "matrix")


def test_gains_are_the_studys_own_with_todays_intervals(flux):
    stored = {record["cell"]: record for record in Stored(FOLDER / "matrix-flux").records}
    for row in flux:
        for score in ("psnr", "ssim", "clip_score[emoji]", "fd[emoji]"):
            was, now = stored[row["cell"]][f"{score}_gain"], row["gains"].get(score)
            assert (was is None) == (now is None)
            assert now is None or now.value == pytest.approx(was, rel=1e-6)


def test_the_table_marks_what_these_intervals_leave_out(flux):
    table = (FOLDER / "matrix" / "table.md").read_text("utf-8")
    halves = dict(zip(PARTS, table.split("gain over step reduction in")[1:], strict=True))
    for row in flux:
        line = next(x for x in halves[row["part"]].splitlines() if x.startswith(f"| {short_name(row)} |"))
        entry = line.split(" | ")[1]
        assert [gain_text(row, score) for score in ("psnr", "clip_score[emoji]", "fd[emoji]")] == entry.split(
            ", "
        )[1:]
    assert "**" in markdown(flux)


def test_a_method_without_a_gain_has_none(flux):
    assert gain_text(flux[0] | {"gains": {}}, "psnr") == "–"

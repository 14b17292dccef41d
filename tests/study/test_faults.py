"""A study that is stopped at any moment, or whose disk is full, ends as one that was not: the same table, the
same images, nothing made twice, nothing left over. `pytest -m faults --moments 100` tries many moments."""

import re
import signal
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from fovea.study.store import Store
from tests.study import faulty

pytestmark = pytest.mark.faults
SIGNALS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, 0), signal.SIGINT: (130, 0)}  # 0: it was done by then
MEASURED = "seconds|apart|speedup|memory|gain|disagree|break_even|front|joules|contended|throttled"
SESSION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{4}")


@pytest.fixture(scope="module")
def arguments(small):
    words = [word for word in small if not word.startswith(("n=", "sweep.grid"))]
    return [*words, "n=2", "sweep.grid.method.ratio=[0.25]", "name=x"]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """A study that nothing happened to, and the processor time it took."""
    folder = tmp_path_factory.mktemp("whole")
    assert faulty.study([*arguments, f"results={folder}"], folder / "log") == 0
    return folder / "x", faulty.seconds(folder / "log")


def pytest_generate_tests(metafunc):
    if "moment" in metafunc.fixturenames:
        count = metafunc.config.getoption("--moments")
        drawn = [(n, round(Random(f"{n} {i}").random(), 3)) for n in SIGNALS for i in range(count)]
        names = [f"{number.name} at {moment}" for number, moment in drawn]
        metafunc.parametrize(("number", "moment"), drawn, ids=names)


def table(study: Path) -> pd.DataFrame:
    """What is not measured."""
    found = pd.read_parquet(study / "table.parquet")
    return found.drop(columns=found.filter(regex=MEASURED).columns)


def images(study: Path) -> dict[str, bytes]:
    return {str(file.relative_to(study)): file.read_bytes() for file in study.glob("cells/*/images/*/*.png")}


def files(study: Path) -> set[str]:
    """By their places, those of a session by one name."""
    return {SESSION.sub("SESSION", str(f.relative_to(study))) for f in study.rglob("*") if f.is_file()}


def finished(study: Path) -> dict[Path, int]:
    """The images that count, with the time at which each was written."""
    store = Store(study)
    cells = [folder.name for folder in study.glob("cells/*")]
    found = [store.image(cell, key) for cell in cells for key in store.samples(cell)]
    return {file: file.stat().st_mtime_ns for file in found}


def same(study: Path, whole: Path) -> None:
    pd.testing.assert_frame_equal(table(study), table(whole))
    assert images(study) == images(whole)
    assert files(study) == files(whole)


def test_stopped_and_continued(arguments, whole, tmp_path, number, moment):
    command, study, log = [*arguments, f"results={tmp_path}"], tmp_path / "x", tmp_path / "log"
    assert faulty.study(command, log, kill=(number, moment * whole[1])) in SIGNALS[number]
    kept = finished(study)
    assert faulty.study(command, log) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert "Traceback" not in log.read_text()
    same(study, whole[0])


def test_one_of_two_is_killed_and_the_other_makes_the_whole_of_it(arguments, whole, tmp_path):
    command, logs = [*arguments, f"results={tmp_path}"], [tmp_path / "first", tmp_path / "second"]
    codes = faulty.several(command, logs, kill=(signal.SIGKILL, 0.2 * whole[1]))
    assert codes == [-9, 0]
    assert faulty.study(command, logs[1]) == 0  # who is killed after the other has left is cleared away now
    assert not (tmp_path / "x" / ".workers").exists()
    same(tmp_path / "x", whole[0])


@pytest.mark.parametrize("limit", [300, 3_000, 30_000])
def test_no_room_and_continued(arguments, whole, tmp_path, limit):
    """No file can be longer: provenance, images, or figures fail."""
    command, study, log = [*arguments, f"results={tmp_path}"], tmp_path / "x", tmp_path / "log"
    assert faulty.study(command, log, bytes_a_file=limit) == 4
    text = log.read_text()
    assert "Traceback" not in text
    assert "stopped: " in text
    assert not list(study.rglob("*.unfinished"))
    kept = finished(study)
    assert faulty.study(command, log) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    same(study, whole[0])


def test_where_nothing_can_be_written(arguments, tmp_path):
    """/proc takes no folder of anybody's, not even of an administrator's."""
    assert faulty.study([*arguments, "results=/proc/fovea"], tmp_path / "log") == 4
    text = (tmp_path / "log").read_text()
    assert "stopped: /proc/fovea/x" in text
    assert "Traceback" not in text

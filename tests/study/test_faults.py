"""A study that is stopped at any moment, or whose disk is full, ends as one that was not: the same table, the
same images, nothing made twice, nothing left over. `pytest -m faults --moments 100` tries many moments."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from fovea.study.store import Store
from tests.study import faulty
from tests.study.faulty import CODES, PHASES, Strike

pytestmark = pytest.mark.faults
MEASURED = "seconds|apart|speedup|memory|gain|disagree|break_even|front|joules|contended|throttled"
SESSION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{4}")
LEAN = [
    *("model.steps=4", "model.height=64", "model.width=64", "method.start=1", "n=2", "batch=1", "name=x"),
    *("sweep.grid.method.ratio=[0.25]", "sweep.curve=null", "metric=[psnr]"),
]


@pytest.fixture(scope="module")
def arguments(small):
    """Two cells of two batches."""
    return [*LEAN, *(word for word in small if word.startswith(("model.path=", "prompts=")))]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """A study that nothing happened to, and how many steps each phase of it took."""
    folder = tmp_path_factory.mktemp("whole")
    code, steps = faulty.counted(folder / "x", [*arguments, f"results={folder}"], folder / "log")
    assert code == 0
    assert min(steps.values()) > 10
    return folder / "x", steps


def strikes(number: signal.Signals, moments: int) -> Iterator[list[tuple[str, float]]]:
    """Of one study after the other: the phases in which it is stopped, start after start, and how far it is
    in each. Of every five moments each phase has one: four in a row, and one alone."""
    random = Random(number)
    while moments > 0:
        phases = random.sample(PHASES, len(PHASES))
        for chosen in (sorted(phases[1:], key=PHASES.index), phases[:1]):
            if moments > 0:
                yield [(phase, round(random.random(), 3)) for phase in chosen[:moments]]
            moments -= len(chosen)


def pytest_generate_tests(metafunc):
    if "moments" in metafunc.fixturenames:
        count = metafunc.config.getoption("--moments")
        drawn = [(number, moments) for number in CODES for moments in strikes(number, count)]
        names = [f"{n.name} {' '.join(f'{phase} {part}' for phase, part in moments)}" for n, moments in drawn]
        metafunc.parametrize(("number", "moments"), drawn, ids=names)


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


def kept(study: Path, before: dict[Path, int]) -> dict[Path, int]:
    """What is finished; none of what was before has been made again."""
    found = finished(study)
    assert {file: found.get(file) for file in before} == before
    return found


def ends(command, log, study, before, whole):
    """The next start finishes it, makes nothing again and says nothing of the trouble: it is as the whole."""
    assert faulty.study(command, log) == 0
    kept(study, before)
    assert "Traceback" not in log.read_text()
    same(study, whole[0])


def test_stopped_and_continued(arguments, whole, tmp_path, number, moments):
    command, study, log = [*arguments, f"results={tmp_path}"], tmp_path / "x", tmp_path / "log"
    before: dict[Path, int] = {}
    for phase, part in moments:
        strike = Strike(number, phase, int(part * whole[1][phase]))
        assert faulty.struck(study, command, log, strike) in CODES[number]
        before = kept(study, before)
    ends(command, log, study, before, whole)


def test_what_a_user_starts_is_stopped_and_continued(arguments, whole, tmp_path):
    command, study, log = [*arguments, f"results={tmp_path}"], tmp_path / "x", tmp_path / "log"
    assert faulty.struck_fresh(study, command, log, signal.SIGKILL, "generating") == -9
    before = kept(study, {})
    assert faulty.struck_fresh(study, command, log, signal.SIGTERM, "scoring") == 143
    before = kept(study, before)
    ends(command, log, study, before, whole)


def test_one_of_two_is_killed_and_the_other_makes_the_whole_of_it(arguments, whole, tmp_path):
    command, logs = [*arguments, f"results={tmp_path}"], [tmp_path / "first", tmp_path / "second"]
    strike = Strike(signal.SIGKILL, "generating", whole[1]["generating"] // 3)
    assert faulty.several(command, tmp_path / "x", logs, strike) == [-9, 0]
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
    before = finished(study)
    assert faulty.study(command, log) == 0
    kept(study, before)
    same(study, whole[0])


def test_where_nothing_can_be_written(arguments, tmp_path):
    """/proc takes no folder of anybody's, not even of an administrator's."""
    assert faulty.study([*arguments, "results=/proc/fovea"], tmp_path / "log") == 4
    text = (tmp_path / "log").read_text()
    assert "stopped: /proc/fovea/x" in text
    assert "Traceback" not in text

"""A sample is there whole or not at all, and no other than the one that was recorded."""

import errno
import os
import pickle
import shutil

import numpy as np
import pytest

from fovea.study import files, record_files
from fovea.study.config.errors import Refused
from fovea.study.files import Unwritable, storable, write, write_json
from fovea.study.picture import Damaged, pixels
from fovea.study.records import VERSION, FailureRecord, FlopsRecord
from fovea.study.store import Store
from tests.study.made_up import add, image

KEY, OTHER = "ab" * 8, "cd" * 8


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "study")
    add(found, "c", {KEY: image(0), OTHER: image(1)})
    return found


def segment(store, cell="c"):
    return next(store.cell(cell).glob("records/*.jsonl"))


def afresh(store):
    return Store(store.folder)


# what counts


def test_a_sample_comes_back_as_it_went(store):
    found = afresh(store).samples("c")
    assert list(found) == [KEY, OTHER]
    assert found[OTHER].flops == 10**12
    assert found[OTHER].sha256 != found[KEY].sha256
    assert found.column("seed").tolist() == [0, 0]
    assert found.of_batch("seconds").tolist() == [1.0, 1.0]
    assert [batch.state for batch in found.timings] == [{"joules": None, "throttled": None}]
    assert list(found.only([OTHER, "e" * 16, KEY])) == [OTHER, KEY]


def test_nothing_is_a_cell_of_no_samples(tmp_path):
    found = Store(tmp_path).samples("c")
    assert (len(found), found.timings, found.failures, found.flops) == (0, [], [], None)
    assert found.column("flops").sum() == 0


def test_an_image_without_its_record_is_none_and_a_record_without_its_image(store):
    write(store.image("c", "ef" * 8), image(2))
    store.image("c", KEY).unlink()
    assert list(afresh(store).samples("c")) == [OTHER]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file, other: file.write_bytes(file.read_bytes()[:-9]),
        lambda file, other: file.write_bytes(b""),
        lambda file, other: file.write_bytes(b"x" * file.stat().st_size),
        lambda file, other: shutil.copy(other, file),
        lambda file, other: flip(file),
    ],
)
def test_an_image_that_is_not_the_recorded_one_counts_as_missing_and_is_told(store, damage):
    store = afresh(store)
    damage(store.image("c", KEY), store.image("c", OTHER))
    assert store.verify(["c"]) == [store.image("c", KEY)]
    assert list(store.samples("c")) == [OTHER]
    add(store, "c", {KEY: image(0)})
    assert set(store.samples("c")) == {KEY, OTHER}
    assert store.verify(["c"]) == []


def flip(file):
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(bytes(data))


def test_a_copied_study_is_whole_and_its_images_are_read_once(store, tmp_path, monkeypatch):
    copy = Store(shutil.copytree(store.folder, tmp_path / "copy", copy_function=shutil.copyfile))
    assert copy.verify(["c"]) == []
    assert set(copy.samples("c")) == {KEY, OTHER}
    monkeypatch.setattr("hashlib.sha256", None)
    assert afresh(copy).verify(["c"]) == []


def test_an_image_that_no_longer_reads_is_missing_from_then_on(store):
    store.image("c", KEY).write_bytes(b"no image")
    with pytest.raises(Damaged) as found:
        pixels(store.image("c", KEY))
    store.distrust(found.value.path)
    assert list(store.samples("c")) == [OTHER]


# lines


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: b"",
        lambda text: text.replace(b'"flops":1000000000000', b'"flops":1000000000001', 1),
        lambda text: b"\x00" * len(text),
        lambda text: b'{"check":"00000000","batch":{}}\n[]\nnull\n',
    ],
)
def test_a_torn_or_changed_line_is_none(store, damage):
    segment(store).write_bytes(damage(segment(store).read_bytes()))
    assert list(afresh(store).samples("c")) == []


def test_lines_that_are_no_records_are_counted_with_an_index_too(store):
    for at, text in enumerate((b"[]\n", b"null\n\xff\xfe\n"), 1):
        with open(segment(store), "ab") as file:
            file.write(text)
        again = afresh(store)
        again.verify(["c", "none"])
        assert again.broken(["c", "none"]) == {store.cell("c") / "records": 2 * at - 1}
        assert list(again.samples("c")) == [KEY, OTHER]
        again.index(["c"])


def test_a_torn_tail_costs_nothing_but_itself(store):
    whole = segment(store).read_bytes()
    segment(store).write_bytes(whole + whole[:50])
    assert list(afresh(store).samples("c")) == [KEY, OTHER]


def test_another_cells_records_are_none(store):
    shutil.copytree(store.cell("c"), store.cell("d"))
    assert list(store.samples("d")) == []


def test_the_later_record_of_a_key_counts_and_the_last_timing_of_a_batch(store):
    later = Store(store.folder)
    add(later, "c", {KEY: image(0)}, seconds=2.0)
    add(later, "c", {}, seconds=3.0)  # the batch timed again
    found = afresh(store).samples("c")
    assert dict(zip(found, found.of_batch("seconds"), strict=True)) == {KEY: 2.0, OTHER: 1.0}
    assert [batch.seconds for batch in found.timings] == [1.0, 2.0, 3.0]
    assert [batch.seconds for batch in found.batches.values()] == [3.0]


def test_what_else_is_noted(store):
    failure = FailureRecord(cell="c", time="now", type="E", message="é\n", traceback="")
    for record in (failure, FlopsRecord(cell="c", images=2, counted=4, closed=5), failure):
        store.append(record)
    found = afresh(store).samples("c")
    assert found.failures == [failure, failure]
    assert found.flops.closed == 5


def test_an_index_changes_nothing_and_is_made_anew_where_it_does_not_fit(store, monkeypatch):
    monkeypatch.setattr(record_files, "LONG", 1)
    store.append(FlopsRecord(cell="c", images=2, counted=4, closed=5))
    before = afresh(store).records("c")
    store.index(["c"])
    file = store.cell("c") / record_files.INDEX
    with monkeypatch.context() as patch:
        patch.setattr(record_files, "parsed", refuse_batches)  # nothing is read of the lines
        same(afresh(store).records("c"), before)
    add(store, "c", {"ef" * 8: image(2)}, "e" * 12)
    assert list(afresh(store).records("c")) == [KEY, OTHER, "ef" * 8]
    store.index(["c"])
    assert list(afresh(store).records("c")) == [KEY, OTHER, "ef" * 8]
    segment(store).write_bytes(segment(store).read_bytes().replace(b"a fox", b"an ox", 1))
    assert list(afresh(store).records("c")) == ["ef" * 8]
    file.write_bytes(b"no parquet")
    assert list(afresh(store).records("c")) == ["ef" * 8]


def refuse_batches(text, cell):
    assert b'"batch":' not in text[:40]
    return parsed(text, cell)


parsed = record_files.parsed


def same(a, b):
    assert [a[key] for key in a] == [b[key] for key in b]
    assert (a.timings, a.others) == (b.timings, b.others)


# what was in focus


def test_focus_is_kept_beside_the_records(store):
    had = np.linspace(0, 1, 12).reshape(2, 2, 3)
    store.write_focus("c", "b" * 12, {KEY: had, OTHER: 1 - had})
    found = store.focus("c", [OTHER, "e" * 16])
    assert list(found) == [OTHER]
    np.testing.assert_allclose(found[OTHER], 1 - had, atol=1 / 255)
    next(store.cell("c").rglob("*.npz")).write_bytes(b"PK")
    assert store.focus("c", [KEY]) == {}


# the disk


def test_a_write_that_dies_leaves_what_was_there_and_no_part(tmp_path, monkeypatch):
    write(tmp_path / "x", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Unwritable, match="x cannot be written: no space left on device"):
        write(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_line_that_the_disk_has_no_room_for_is_taken_back(store, monkeypatch):
    before = segment(store).read_bytes()
    fsync = os.fsync

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unwritable, match="no space left"):
        store.append(FlopsRecord(cell="c", images=2, counted=4, closed=5))
    assert segment(store).read_bytes() == before
    monkeypatch.setattr(os, "fsync", fsync)
    store.append(FlopsRecord(cell="c", images=2, counted=4, closed=5))
    assert afresh(store).samples("c").flops.images == 2


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_is_none_the_worse(tmp_path, monkeypatch, code):
    def unknown(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", unknown)
    store = Store(tmp_path)
    add(store, "c", {KEY: image()})
    assert list(store.samples("c")) == [KEY]


def test_leftovers_of_a_kill_are_cleared_and_a_users_files_are_not(store):
    left = [store.folder / ".table.md.unfinished", store.cell("c") / ".cell.json.unfinished"]
    own = [store.folder / ".mine.1.part", store.folder / ".x.unfinished" / "y"]
    own[1].parent.mkdir()
    for file in (*left, *own):
        file.write_text("")
    with store.at_work():
        assert not any(file.exists() for file in left)
        assert all(file.exists() for file in own)


# the place


def test_where_no_study_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, what in (("file", "a file"), ("link", "a link to nothing")):
        with pytest.raises(Refused, match=f"{place} is {what}, where a folder must be"):
            Store(tmp_path / place / "study").check()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".workers").write_text("")
    with pytest.raises(Unwritable, match="file exists"), Store(tmp_path / "study").at_work():
        raise AssertionError("at work in a file")


@pytest.mark.parametrize(
    ("file", "version", "made"),
    [
        ("cell.json", VERSION + 1, "a newer"),
        ("cell.json", 0, "an older"),
        (f"samples/{KEY}.json", 0, "an older"),
    ],
)
def test_records_of_another_version_are_refused_by_name(tmp_path, file, version, made):
    write_json(tmp_path / "cells" / "c" / file, {"version": version})
    with pytest.raises(Refused, match=rf"{made} version .* \({version};"), Store(tmp_path).at_work():
        raise AssertionError("another version is read")


# sessions and text


def test_a_session_is_of_a_process_and_sorts_behind_all_before(tmp_path):
    store = Store(tmp_path)
    ahead = "29990101T000000000000-abcd"
    write_json(tmp_path / "runs" / f"{ahead}.json", {})
    write_json(tmp_path / "runs" / "not a session.json", {})
    assert store.session > ahead
    assert pickle.loads(pickle.dumps(store)).session != store.session


def test_text_is_cut_and_spelt_out():
    assert storable("a\ud800b\x1b[31m\n", 100) == "a\\ud800b\\x1b[31m\n"
    long = storable("x" * 5_000_000, 1000)
    assert len(long) < 1100
    assert "4999000 characters left out" in long
    assert storable("é" * 10, 10) == "é" * 10


def test_a_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    order = []
    replace = os.replace
    monkeypatch.setattr(files, "flush", lambda handle: order.append("flush"))
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("rename"), replace(*a)))
    write(tmp_path / "x", "y")
    assert order == ["flush", "rename"]

"""merge=[a,b]: studies of parts, or of machines, as one; refused where one table of both would mislead."""

import io
import json
import os
import shutil

import pandas as pd
import pytest
from PIL import Image

import run
from fovea.study import workers
from fovea.study.commands.merge import PART
from fovea.study.commands.merge_records import check_compatible, merged, side_by_side, with_distinct_labels
from fovea.study.config.errors import Refused
from fovea.study.records import FailureRecord
from fovea.study.report import report
from fovea.study.run import execute
from fovea.study.store import Store
from fovea.study.stored import Stored
from tests.study.made_up import edit_records, replace_image


@pytest.fixture(autouse=True)
def nothing_is_made(finished, monkeypatch):
    monkeypatch.setattr(execute.Runner, "run", None)


def edit(file, change):
    record = json.loads(file.read_text("utf-8"))
    change(record)
    file.write_text(json.dumps(record), "utf-8")


def part(finished, folder, labels=None, samples=slice(None)):
    """A copy with some of the cells, and of each with some of the samples: as another run would leave it."""
    shutil.copytree(finished, folder)

    def keep(record):
        kept = dict(list(record["samples"].items())[samples])
        for key in record["samples"].keys() - kept.keys():
            for file in folder.glob(f"cells/*/**/{key}.*"):
                file.unlink()
        record["samples"] = kept
        for cell, known in list(record["cells"].items()):
            if labels is not None and known["label"] not in labels:
                del record["cells"][cell]
                shutil.rmtree(folder / "cells" / cell)

    edit(folder / "provenance.json", keep)
    return folder


@pytest.fixture
def halves(finished, tmp_path):
    """Without traces: drawing these takes most of a report's time."""
    first = part(finished, tmp_path / "a", ["dense", "ras ratio=0.25", "3 steps"])
    second = part(finished, tmp_path / "b", ["dense", "ras ratio=0.5"])
    for traces in [*first.glob("cells/*/traces"), *second.glob("cells/*/traces")]:
        shutil.rmtree(traces)
    return first, second


def merge(capsys, folder, *studies):
    """Exit code, what was said, and the last line."""
    code = run.main([f"merge=[{','.join(map(str, studies))}]", "name=one", f"results={folder}"])
    out, err = capsys.readouterr()
    return code, err, json.loads(out.splitlines()[-1]) if out else {}


def table(folder):
    return pd.read_parquet(folder / "table.parquet").set_index("label")


def contents(folder):
    return {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()
    }


def test_what_was_split_is_whole_again(finished, halves, tmp_path, capsys):
    """To the last digit; the parts untouched, their images shared."""
    before = [contents(half) for half in halves]
    code, err, summary = merge(capsys, tmp_path, *halves)
    one = tmp_path / "one"
    assert code == 0
    assert "nothing is generated: 4 cells of 2 studies" in err
    assert summary["merged"] == [str(half) for half in halves]
    assert list(table(one).index) == ["dense", "ras ratio=0.25", "ras ratio=0.5", "3 steps"]
    pd.testing.assert_frame_equal(table(one).sort_index(), table(finished).sort_index(), check_like=True)
    a, b = (
        pd.read_parquet(study / "samples.parquet").sort_values(["cell", "key"]) for study in (one, finished)
    )
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), check_like=True)
    assert [contents(half) for half in halves] == before
    for image in one.glob("cells/*/images/*/*.png"):
        source = next(
            half / image.relative_to(one) for half in halves if (half / image.relative_to(one)).exists()
        )
        assert os.path.samefile(image, source)
    for name in ("table.md", "table.tex", "pareto.png", "focus.png", "report.html"):
        assert (one / name).stat().st_size


def test_what_was_split_by_samples_is_whole_again(finished, tmp_path, capsys):
    """The same cells in both: their samples are united; a part says what the other lacks."""
    first = part(finished, tmp_path / "a", samples=slice(2))
    second = part(finished, tmp_path / "b", samples=slice(2, None))
    assert merge(capsys, tmp_path, second, first)[0] == 0
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(finished))
    one, whole = (pd.read_parquet(study / "traces.parquet") for study in (tmp_path / "one", finished))
    pd.testing.assert_frame_equal(one, whole)


@pytest.mark.usefixtures("undrawn")
def test_the_record_holds_all_sources(finished, halves, tmp_path, capsys):
    edit(halves[1] / "provenance.json", lambda r: r.update(commit="f" * 40, command="python run.py other"))
    assert merge(capsys, tmp_path, *halves)[0] == 0
    origin, whole = Stored(tmp_path / "one").provenance, Stored(finished).provenance
    sources = origin["merged"]["sources"]
    assert [source["study"] for source in sources] == [str(half) for half in halves]
    assert [source["commit"] for source in sources] == [whole["commit"], "f" * 40]
    assert sources[1]["command"] == "python run.py other"
    assert sources[0]["packages"] == whole["packages"]
    assert origin["commit"] == f"{whole['commit']} / {'f' * 40}"
    for key in ("samples", "noise", "seeds", "prompts", "packages", "machine"):
        assert origin[key] == whole[key]
    assert origin["cells"] == whole["cells"]
    assert origin["command"].startswith("python run.py 'merge=[")
    assert run.main([f"show={tmp_path / 'one'}"]) == 0
    assert f"from: {halves[1]}: python run.py other" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_merged_study_is_scored_again_as_any_other(halves, tmp_path, capsys):
    assert merge(capsys, tmp_path, *halves)[0] == 0
    before = table(tmp_path / "one")
    assert run.main([f"rescore={tmp_path / 'one'}"]) == 0
    pd.testing.assert_frame_equal(table(tmp_path / "one"), before)


def other_machine(folder, slower):
    """The study as a slower machine of another name would have made it."""
    record = json.loads((folder / "provenance.json").read_text("utf-8"))
    names = {cell: cell[::-1] for cell in record["cells"]}
    record["cells"] = {
        names[cell]: known | {"dense": names[known["dense"]], "machine": "Elsewhere"}
        for cell, known in record["cells"].items()
    }
    (folder / "provenance.json").write_text(json.dumps(record), "utf-8")
    for cell, name in names.items():
        (folder / "cells" / cell).rename(folder / "cells" / name)
    edit_records(folder, lambda kind, r: elsewhere(kind, r, names, slower))
    return folder


def elsewhere(kind, record, names, slower):
    record["cell"] = names[record["cell"]]
    if kind == "batch":
        record["seconds"] *= slower


@pytest.mark.usefixtures("undrawn")
def test_speedups_stay_within_a_machine(finished, tmp_path, capsys):
    """Every cell has its own machine's baseline; equal names get the machine's."""
    here = part(finished, tmp_path / "a", ["dense", "ras ratio=0.5", "3 steps"])
    there = other_machine(part(finished, tmp_path / "b", ["dense", "ras ratio=0.5", "ras ratio=0.25"]), 3)
    assert merge(capsys, tmp_path, here, there)[0] == 0
    found, alone = table(tmp_path / "one"), table(finished)
    mine = Stored(finished).provenance["cells"][alone.loc["dense", "cell"]]["machine"]
    assert list(found.index) == [
        f"dense @ {mine}",
        "dense @ Elsewhere",
        f"ras ratio=0.5 @ {mine}",
        "ras ratio=0.5 @ Elsewhere",
        "ras ratio=0.25",
        "3 steps",
    ]
    for label in found.index:
        before = alone.loc[label.partition(" @ ")[0]]
        assert found.loc[label, "speedup"] == pytest.approx(before["speedup"])
        assert found.loc[label, "ssim"] == pytest.approx(before["ssim"], nan_ok=True)
    for label in ("dense @ Elsewhere", "ras ratio=0.25"):
        before = alone.loc[label.partition(" @ ")[0]]
        assert found.loc[label, "seconds"] == pytest.approx(3 * before["seconds"])
    cells = Stored(tmp_path / "one").provenance["cells"].values()
    assert {c["series"] for c in cells if c["role"] == "method"} == {f"ras @ {mine}", "ras @ Elsewhere"}


@pytest.mark.parametrize(("papers", "kept"), [((1, 1), 1), ((1, 2), None), ((1, None), None)])
def test_a_papers_table_is_that_of_all_parts_or_of_none(halves, papers, kept):
    for folder, paper in zip(halves, papers, strict=True):
        edit(folder / "provenance.json", lambda r, paper=paper: r["config"].update(paper=paper))
    assert merged([Stored(folder) for folder in halves], [])["config"]["paper"] == kept


def every(**values):
    def change(record):
        for known in record["cells"].values():
            known.update(values)

    return change


def noise(folder):
    def change(kind, record):
        for image in record["images"] if kind == "batch" else []:
            image["noise"] = "0" * 16

    edit_records(folder, change)


def provenance(change):
    return lambda folder: edit(folder / "provenance.json", change)


DISAGREEING = {
    "weights, trained or random: trained in": provenance(lambda r: r.update(random_weights=True)),
    "torch: ": provenance(every(packages={"torch": "0.1"})),
    "code of fovea.methods.Baseline on lumina: ": provenance(every(code="0" * 12)),
    "weights of lumina": provenance(every(weights="0" * 12)),
    "metrics (set again by rescore=FOLDER metric=[...]): psnr, ssim in": provenance(
        lambda r: r["config"]["metric"].pop("ssim")
    ),
    "settings of psnr (set again by rescore=FOLDER metric.psnr...)": provenance(
        lambda r: r["config"]["metric"]["psnr"].update(window=3)
    ),
    "cost (set again by": provenance(lambda r: r["config"].update(cost="flops")),
    "initial noise of lumina": noise,
    "prompts and seeds: ": provenance(lambda r: r["samples"].popitem()),
}


@pytest.mark.parametrize("message", DISAGREEING)
def test_refused_where_they_disagree(message, halves, tmp_path, capsys):
    DISAGREEING[message](halves[1])
    before = sorted(tmp_path.rglob("*"))
    code, err, _ = merge(capsys, tmp_path, *halves)
    assert code == 2
    assert "these do not belong in one table, they differ in\n" in err
    assert message in err
    assert message.startswith("prompts") or str(halves[1]) in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("undrawn")
def test_another_build_of_the_same_package_is_no_other_package(halves, tmp_path, capsys):
    """A card's and a processor's torch bear the same number."""

    def build(record):
        for known in record["cells"].values():
            known["packages"]["torch"] += "+cu126"

    edit(halves[1] / "provenance.json", build)
    assert merge(capsys, tmp_path, *halves)[0] == 0


@pytest.mark.parametrize(("role", "label"), [("dense", "other dense"), ("sibling", "dense @ sd3")])
def test_models_of_two_families_run_other_code_and_merge(finished, tmp_path, role, label):
    """As the parts of a paper's table of two models do; a sibling has its model's name already."""
    other, new = part(finished, tmp_path / "b", ["dense"]), "0" * 12

    def of_another_family(record):
        ((cell, known),) = record["cells"].items()
        model = known["model"] | {"family": "sd3", "path": "other"}
        own = {"code": new, "weights": new, "dense": new, "role": role, "machine": "sd3"}
        record["cells"] = {new: known | {"model": model} | own}
        (other / "cells" / cell).rename(other / "cells" / new)

    edit(other / "provenance.json", of_another_family)
    studies = [Stored(finished), Stored(other)]
    check_compatible("merge", studies)
    assert label in {record["label"] for record in with_distinct_labels(studies).values()}
    roles = [record["role"] for record in merged(studies, [])["cells"].values()]
    assert roles == sorted(roles, key=["dense", "method", "steps", "sibling"].index)


def with_setting(folder, label, **settings):
    """The study, with other settings of the method of one cell, which is then another cell."""
    new = "0" * 12

    def change(record):
        cell = next(cell for cell, known in record["cells"].items() if known["label"] == label)
        record["cells"][new] = record["cells"].pop(cell)
        record["cells"][new]["method"].update(settings)
        (folder / "cells" / cell).rename(folder / "cells" / new)

    edit(folder / "provenance.json", change)
    return Stored(folder)


def test_cells_of_one_name_get_the_setting_that_differs(finished, tmp_path):
    """Names of cells are of what a study sweeps; what it holds fixed may be another in the next study."""
    other = with_setting(part(finished, tmp_path / "b", ["dense", "ras ratio=0.5"]), "ras ratio=0.5", start=3)
    found = [record["label"] for record in with_distinct_labels([Stored(finished), other]).values()]
    assert found == [
        *("dense", "ras ratio=0.5 @ start 2", "ras ratio=0.25", "3 steps"),
        "ras ratio=0.5 @ start 3",
    ]


def test_cells_of_one_name_and_the_same_settings_get_their_ids(finished, tmp_path):
    other = with_setting(part(finished, tmp_path / "b", ["dense", "ras ratio=0.5"]), "ras ratio=0.5")
    cells = with_distinct_labels([Stored(finished), other])
    found = {cell: record["label"] for cell, record in cells.items()}
    assert found["0" * 12] == f"ras ratio=0.5 @ {'0' * 12}"
    assert len(set(found.values())) == len(found) == 5


def test_curves_of_two_solvers_are_refused(finished, tmp_path):
    """A gain is over one curve: of both it would be over a zigzag."""
    other = with_setting(part(finished, tmp_path / "b", ["dense", "3 steps"]), "3 steps", solver="heun")
    with pytest.raises(Refused, match=r"step reduction of .*sweep.solver=euler.*; sweep.solver=heun"):
        check_compatible("merge", [Stored(finished), other])


def test_another_image_under_the_same_key_is_refused(halves, tmp_path, capsys):
    dense = table(halves[1]).loc["dense", "cell"]
    images = sorted((halves[1] / "cells" / dense).glob("images/*/*.png"))
    replace_image(halves[1], dense, images[0].stem, images[1].read_bytes())
    code, err, _ = merge(capsys, tmp_path, *halves)
    assert code == 2
    assert f"{halves[1]} has another image than the studies before it of dense, prompt " in err
    assert not list(tmp_path.glob("*one*"))


@pytest.mark.usefixtures("undrawn")
def test_the_same_image_packed_otherwise_is_the_same(halves, tmp_path, capsys):
    for image in halves[1].glob("cells/*/images/*/*.png"):
        data = io.BytesIO()
        Image.open(image).save(data, "PNG", compress_level=0)
        replace_image(halves[1], image.parts[-4], image.stem, data.getvalue())
    assert merge(capsys, tmp_path, *halves)[0] == 0
    one = Store(tmp_path / "one")
    cells = [folder.name for folder in (one.folder / "cells").iterdir()]
    assert one.verify(cells) == []
    assert [len(one.samples(cell)) for cell in cells] == [3] * 4


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("order", [1, -1])
def test_a_copy_made_while_the_study_ran_adds_nothing_and_takes_nothing(finished, tmp_path, capsys, order):
    """The same session, cut off after its first batch within a line."""
    early = tmp_path / "early"
    shutil.copytree(finished, early)
    for file in early.glob("cells/*/records/*.jsonl"):
        lines = file.read_bytes().splitlines(keepends=True)
        batch = next(i for i, line in enumerate(lines) if b'"batch":' in line)
        file.write_bytes(b"".join(lines[: batch + 1]) + lines[batch + 1][:20])
    before = contents(early), contents(finished)
    assert merge(capsys, tmp_path, *[early, finished][::order])[0] == 0
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(finished))
    assert (contents(early), contents(finished)) == before


@pytest.mark.usefixtures("undrawn")
def test_what_a_killed_merge_left_is_removed_and_what_another_holds_stays(halves, tmp_path, capsys):
    stale, held, fresh = (tmp_path / PART.format("one", name) for name in ("stale", "held", "fresh"))
    for folder in (stale, held, fresh):
        (folder / "cells").mkdir(parents=True)
    with Store(held).at_work():
        for folder in (stale, held):
            os.utime(folder, (0, 0))
        assert merge(capsys, tmp_path, *halves)[0] == 0
    assert (stale.exists(), held.exists(), fresh.exists()) == (False, True, True)


@pytest.mark.usefixtures("undrawn")
def test_a_merge_that_is_suspended_keeps_its_folder(halves, tmp_path, capsys, monkeypatch):
    """Ctrl-Z, a suspended machine or a clock that jumped: not heard of for long, but its lock is held."""
    monkeypatch.setattr(workers, "BEAT", 3600.0)
    suspended = tmp_path / PART.format("one", "suspended")
    with Store(suspended).at_work():
        for place in (*suspended.glob(".workers/*"), suspended):
            os.utime(place, (0, 0))
        assert merge(capsys, tmp_path, *halves)[0] == 0
        assert suspended.exists()
    capsys.readouterr()
    shutil.rmtree(tmp_path / "one")
    os.utime(suspended, (0, 0))
    assert merge(capsys, tmp_path, *halves)[0] == 0
    assert not suspended.exists()


@pytest.mark.usefixtures("undrawn")
def test_what_a_source_records_later_is_not_of_the_merged_study(halves, tmp_path, capsys):
    """As by a process that goes on with the source: a later time of a batch counts, in its study alone."""
    assert merge(capsys, tmp_path, *halves)[0] == 0
    files = [*halves[0].glob("cells/*/records/*.jsonl")]
    before = {file: (tmp_path / "one" / file.relative_to(halves[0])).read_bytes() for file in files}
    assert before
    assert all(text == file.read_bytes() for file, text in before.items())
    for file in files:
        with file.open("ab") as stream:
            stream.write(file.read_bytes())
    after = {file: (tmp_path / "one" / file.relative_to(halves[0])).read_bytes() for file in files}
    assert after == before


@pytest.mark.usefixtures("undrawn")
def test_of_two_merges_under_one_name_one_wins(halves, tmp_path, capsys, monkeypatch):
    """The second is made whole while the first one scores."""
    finished = report.report

    def overtaken(*arguments):
        monkeypatch.setattr(report, "report", finished)
        assert merge(capsys, tmp_path, *halves)[0] == 0
        winner.update(contents(tmp_path / "one"))
        return finished(*arguments)

    winner: dict = {}
    monkeypatch.setattr(report, "report", overtaken)
    code, err, _ = merge(capsys, tmp_path, *halves)
    assert code == 2
    assert f"name=one: another merge has made {tmp_path / 'one'} meanwhile; give another name" in err
    assert winner
    assert contents(tmp_path / "one") == winner
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "one"]


def test_a_merge_that_is_stopped_leaves_nothing(halves, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "report", stop)
    before = [contents(half) for half in halves]
    assert merge(capsys, tmp_path, *halves)[0] == 130
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
    assert [contents(half) for half in halves] == before


def test_a_part_that_was_scored_again_is_merged_with_one_that_was_not(halves, tmp_path, capsys):
    assert run.main([f"rescore={halves[0]}"]) == 0
    assert merge(capsys, tmp_path, *halves)[0] == 0
    origin = Stored(tmp_path / "one").provenance
    assert "rescored" not in origin
    assert ["rescored" in source for source in origin["merged"]["sources"]] == [True, False]
    assert (tmp_path / "one" / "report.html").stat().st_size


@pytest.mark.parametrize(
    ("values", "one"),
    [
        ((1, 1), 1),
        ((1, 2), "1 / 2"),
        ((False, True), True),
        (({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}), {"a": 1, "b": {"c": "2 / 3"}}),
        (({"a": 1}, None), {"a": "1 / None"}),
    ],
)
def test_what_differs_stands_side_by_side(values, one):
    assert side_by_side(values) == one


@pytest.mark.usefixtures("undrawn")
def test_failures_are_kept(halves, tmp_path, capsys):
    cell = table(halves[0]).loc["3 steps", "cell"]
    shutil.rmtree(halves[0] / "cells" / cell / "images")
    Store(halves[0]).append(FailureRecord(cell=cell, time="", type="NotFinite", message="NaN", traceback=""))
    code, _, summary = merge(capsys, tmp_path, *halves)
    assert (code, summary["failed"]) == (3, 1)
    assert table(tmp_path / "one").loc["3 steps", "failure"] == "NotFinite: NaN"


def test_refused(finished, halves, tmp_path, capsys):
    a, b = halves
    shutil.copytree(finished, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "cells")
    lone = part(finished, tmp_path / "lone", ["3 steps"])
    for arguments, message in {
        (f"merge=[{a},{b}]",): "the new study needs a name: name=NEW",
        (f"merge=[{a},{b}]", "name=bare"): "bare is there already; give another name",
        (f"merge=[{a},{b}]", "name=../x"): "name=../x: must be letters, digits",
        (f"merge=[{a}]", "name=x"): "give two or more different studies",
        (f"merge=[{a},{a}]", "name=x"): "give two or more different studies",
        (f"merge=[{a},{tmp_path}/bb]", "name=x"): f"no study; did you mean {b}?",
        (f"merge=[{a},{tmp_path}/bare]", "name=x"): "are not here, only what was written of them",
        (
            f"merge=[{a},{b}]",
            "name=x",
            "eval=quick",
        ): "eval=quick: only name,",
        (f"merge=[{lone},{tmp_path}/bare]", "name=x"): "are not here",
    }.items():
        assert run.main([*arguments, f"results={tmp_path}"]) == 2
        assert message in capsys.readouterr().err
    other = part(finished, tmp_path / "other", ["ras ratio=0.5"])
    assert run.main([f"merge=[{lone},{other}]", "name=x", f"results={tmp_path}"]) == 2
    assert "the baseline of 3 steps is in none of these studies" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damaged", [0, 1])
def test_an_image_that_is_not_the_recorded_one_is_named_and_taken_from_the_other_study(
    halves, tmp_path, capsys, damaged
):
    """The study that is whole is not blamed for the difference."""
    cell, known = next(iter(Stored(halves[damaged]).provenance["cells"].items()))
    assert known["label"] == "dense"
    file = next((halves[damaged] / "cells" / cell / "images").glob("*/*.png"))
    whole = file.read_bytes()
    file.unlink()
    Image.new("RGB", Image.open(io.BytesIO(whole)).size).save(file)
    code, err, _ = merge(capsys, tmp_path, *halves)
    assert code == 0
    assert f"{file}: not readable, or not the image that was recorded" in " ".join(err.split())
    merged_file = tmp_path / "one" / file.relative_to(halves[damaged])
    assert merged_file.read_bytes() == whole

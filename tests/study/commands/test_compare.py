"""compare=[a,b]: what changed between two studies, figure by figure, and where they come from."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

import run
from fovea.eval.frechet import FrechetDistance
from fovea.eval.statistics import paired_difference
from fovea.study.analysis.change import changes
from fovea.study.picture import pixels, png
from fovea.study.store import Store
from fovea.study.stored import Stored
from tests.study.made_up import add, edit_records, replace_image

EMBEDDED = Path(__file__).resolve().parents[3] / "results" / "embedded"


@pytest.fixture
def pair(finished, tmp_path):
    return [Stored(shutil.copytree(finished, tmp_path / name)) for name in ("before", "after")]


def compare(capsys, a, b, *more):
    """The object in the last line, and the text."""
    assert run.main([f"compare=[{a.folder},{b.folder}]", f"results={a.folder.parent}", *more]) == 0
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


def edit(file, change):
    record = json.loads(file.read_text("utf-8"))
    change(record)
    file.write_text(json.dumps(record), "utf-8")


def rewrite(study, name, change):
    """A table of the study with its lines changed in place."""
    frame = pd.read_parquet(study.folder / f"{name}.parquet")
    change(frame)
    frame.to_parquet(study.folder / f"{name}.parquet", index=False)


def figures(found, cell):
    return {row["figure"]: row for row in found["rows"] if row["cell"] == cell}


def test_a_study_and_its_copy_are_the_same(pair, capsys):
    before = sorted(pair[0].folder.parent.rglob("*"))
    found, out = compare(capsys, *pair)
    assert found["cells"] == 4
    assert found["only"] == [[], []]
    assert (found["identical"], found["images"]) == (12, 12)
    assert found["differs"] == {}
    assert all(row["value"] == 0 for row in found["rows"] if "value" in row)
    assert "4 cells in both, 4 of them of the same id" in out
    assert "12 of 12 images are the same to the bit" in out
    assert "nothing differs in where they come from" in out
    assert sorted(pair[0].folder.parent.rglob("*")) == before


@pytest.mark.usefixtures("undrawn")
def test_one_changed_image_shows_in_its_cell_alone(pair, capsys):
    cell = next(r["cell"] for r in pair[0].records if r["label"] == "ras ratio=0.5")
    image = sorted(pair[1].folder.glob(f"cells/{cell}/images/*/*.png"))[0]
    other = pixels(image).copy()
    other[:8] //= 2
    replace_image(pair[1].folder, cell, image.stem, png(other, False))
    assert run.main([f"rescore={pair[1].folder}"]) == 0
    capsys.readouterr()
    a, b = pair[0], Stored(pair[1].folder)
    found, out = compare(capsys, a, b)
    assert (found["identical"], found["images"]) == (11, 12)
    assert "; not all of ras ratio=0.5 2/3" in out
    values = {}
    for study in (a, b):
        rows = [r for r in study.samples if r["cell"] == cell]
        values[study] = [r["psnr"] for r in rows]
    expected = paired_difference(values[b], values[a], pool="decibel", groups=[r["prompt"] for r in rows])
    row = figures(found, "ras ratio=0.5")["psnr"]
    assert row["pairs"] == 3
    for key in ("value", "low", "high"):
        assert row[key] == pytest.approx(getattr(expected, key), rel=1e-4)
    assert row["second"] - row["first"] == pytest.approx(row["value"], rel=1e-2)
    for label in ("dense", "ras ratio=0.25", "3 steps"):
        assert all(r["value"] == 0 for r in figures(found, label).values() if "value" in r)


def test_costs_are_compared_batch_by_batch(pair, capsys):
    def slower(frame):
        frame.loc[frame["label"] == "3 steps", "seconds"] *= 1.5

    rewrite(pair[1], "samples", slower)
    rewrite(pair[1], "table", slower)
    found, out = compare(capsys, *pair)
    row = figures(found, "3 steps")
    assert row["seconds"]["value"] == pytest.approx(0.5)
    assert row["speedup"]["value"] == pytest.approx(1 / 1.5 - 1, rel=1e-4)
    assert row["seconds"]["relative"]
    assert "+50.0 %" in out
    assert figures(found, "dense")["seconds"]["value"] == 0


@pytest.mark.usefixtures("undrawn")
def test_a_cell_made_later_is_compared_with_the_dense_calls_of_its_session(pair, capsys):
    """The machine is three times as slow in a second session, which makes 3 steps and times dense again."""
    folder, cells = pair[1].folder, {r["label"]: r["cell"] for r in pair[1].records}
    later = Store(folder)
    for batch in later.samples(cells["dense"]).batches.values():
        again = {"size": batch.size, "device": batch.device, "time": "2099-01-01T00:00:00+00:00"}
        add(later, cells["dense"], {}, batch.id, 3 * batch.seconds, **again)

    def slower(kind, record):
        if kind == "batch":
            record.update(session=later.session, seconds=3 * record["seconds"])

    edit_records(folder, slower, cells["3 steps"])
    assert run.main([f"rescore={folder}"]) == 0
    capsys.readouterr()
    found, _ = compare(capsys, pair[0], Stored(folder))
    for label, expected in {"3 steps": 2.0, "dense": 2.0, "ras ratio=0.5": 0.0}.items():
        assert figures(found, label)["seconds"]["value"] == pytest.approx(expected, abs=1e-4)
        assert figures(found, label)["speedup"]["value"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_calls_that_count_nowhere_are_not_compared(pair, capsys):
    """Of two batches of three images the smaller one is none, and the throttled one has no time."""
    folder, cell = pair[1].folder, next(r["cell"] for r in pair[1].records if r["label"] == "3 steps")

    def hot(kind, record):
        if kind == "batch":
            record["seconds"] *= 5
            record["state"]["throttled"] = True

    edit_records(folder, hot, cell)
    assert run.main([f"rescore={folder}"]) == 0
    capsys.readouterr()
    after = Stored(folder)
    assert {r["seconds"] for r in after.by_cell[cell]} == {None}
    found, _ = compare(capsys, pair[0], after)
    assert figures(found, "3 steps")["seconds"]["second"] is None
    assert "value" not in figures(found, "3 steps")["seconds"]


@pytest.mark.parametrize("identical", [0, 1])
def test_decibels_stay_pooled_as_powers_where_the_other_images_are_all_identical(pair, capsys, identical):
    def at_dense(frame):
        frame.loc[frame["label"] == "ras ratio=0.5", "psnr"] = math.inf

    for name in ("samples", "table"):
        rewrite(pair[identical], name, at_dense)
    found, _ = compare(capsys, *pair)
    row = figures(found, "ras ratio=0.5")["psnr"]
    values = [r["psnr"] for r in pair[1 - identical].samples if r["label"] == "ras ratio=0.5"]
    expected = -10 * math.log10(np.mean([10 ** (-x / 10) for x in values]))
    assert (row["first"], row["second"])[identical] == "inf"
    assert (row["second"], row["first"])[identical] == pytest.approx(expected, rel=1e-4)
    assert row["why"].startswith("no difference in decibels")


def test_other_samples_are_independent(pair, capsys):
    """Two seeds, say: the interval is that of two means, from the standard errors of the tables."""

    def reseed(frame):
        frame["key"] = frame["key"].str[::-1]

    rewrite(pair[1], "samples", reseed)
    rewrite(pair[1], "table", lambda frame: frame.update(frame[["ssim"]] + 0.01))
    found, _ = compare(capsys, *pair)
    row = figures(found, "3 steps")["ssim"]
    record = next(r for r in pair[0].records if r["label"] == "3 steps")
    half = t.ppf(0.975, 4) * math.hypot(record["ssim_se"], record["ssim_se"])
    assert row["pairs"] == 0
    assert row["value"] == pytest.approx(0.01)
    assert row["high"] == pytest.approx(0.01 + half, rel=1e-4)
    assert 0 < row["holm"] <= 1


def test_seeds_of_one_prompt_are_no_further_draws(pair, capsys):
    """Three images of two prompts have the degrees of freedom of two."""

    def reseed(frame):
        frame["key"] = frame["key"].str[::-1]

    def two_prompts(frame):
        frame["prompt"] = frame["prompt"].replace(frame["prompt"].unique()[2], frame["prompt"].unique()[1])

    for study in pair:
        rewrite(study, "samples", two_prompts)
    rewrite(pair[1], "samples", reseed)
    rewrite(pair[1], "table", lambda frame: frame.update(frame[["ssim"]] + 0.01))
    row = figures(compare(capsys, *pair)[0], "3 steps")["ssim"]
    record = next(r for r in pair[0].records if r["label"] == "3 steps")
    half = t.ppf(0.975, 2) * math.hypot(record["ssim_se"], record["ssim_se"])
    assert row["high"] == pytest.approx(0.01 + half, rel=1e-4)


def test_what_both_have_of_the_images_is_compared(pair, capsys):
    """n=3 against n=2: the figures are those of the two images that both have."""
    last = pair[0].samples[2]["key"]
    frame = pd.read_parquet(pair[1].folder / "samples.parquet")
    frame[frame["key"] != last].to_parquet(pair[1].folder / "samples.parquet", index=False)
    found, _ = compare(capsys, *pair)
    row = figures(found, "3 steps")["ssim"]
    values = [r["ssim"] for r in pair[0].samples if r["label"] == "3 steps" and r["key"] != last]
    assert row["pairs"] == 2
    assert row["first"] == pytest.approx(np.mean(values), rel=1e-4)
    assert row["value"] == 0


def test_distances_of_unequal_numbers_of_images_do_not_compare(pair):
    def more(frame):
        frame["n"], frame["fd[emoji]"], frame["fd[emoji]_se"], frame["fd[emoji]_n"] = 5, 9.0, 1.0, 5

    def fewer(frame):
        frame["fd[emoji]"], frame["fd[emoji]_se"], frame["fd[emoji]_n"] = 8.0, 1.0, 3

    def known(record):
        record["scores"]["fd[emoji]"] = FrechetDistance.facts.plain()

    for study, change in zip(pair, (more, fewer), strict=True):
        rewrite(study, "table", change)
        edit(study.folder / "provenance.json", known)
    both = list(zip(pair[0].records, pair[1].records, strict=True))
    found = [c for c in changes(*pair, both) if c.figure == "fd[emoji]"]
    assert len(found) == len(both)
    assert {c.why for c in found} == {"of 5 and 3 images: such distances do not compare"}
    assert all(c.by is None for c in found)


def test_where_they_come_from_is_told(pair, capsys):
    def other(record):
        record["commit"], record["packages"]["torch"], record["machine"]["device"] = "f" * 40, "0.1", "cuda"
        record["machine"]["load_average"] = 99.0
        record["config"]["batch"] = 7
        record["config"]["results"] = "elsewhere"
        for known in record["cells"].values():
            known["code"] = "changed"

    edit(pair[1].folder / "provenance.json", other)
    rewrite(
        pair[1],
        "samples",
        lambda frame: frame.update(frame[["noise"]].replace(".", "x", regex=True).iloc[:1]),
    )
    found, out = compare(capsys, *pair)
    differs, before = found["differs"], pair[0].provenance
    assert differs["commit"] == [before["commit"], "f" * 40]
    assert differs["package.torch"] == [before["packages"]["torch"], "0.1"]
    assert differs["machine.device"] == ["cpu", "cuda"]
    assert differs["batch"] == ["2", "7"]
    assert not [key for key in differs if "load" in key or "results" in key]
    code = {known["code"] for known in before["cells"].values()}
    assert {first for key, (first, _) in differs.items() if key.startswith("code of ")} == code
    assert differs["initial noise of 1 of 12 images"] == ["one", "another"]
    assert "package.torch" in out


def test_cells_are_matched_by_name_then_by_id(pair, capsys):
    def rename(frame):
        frame["label"] = frame["label"].replace({"3 steps": "three steps", "ras ratio=0.25": "ras ratio=0.3"})
        frame.loc[frame["label"] == "ras ratio=0.3", "cell"] = "0" * 12

    rewrite(pair[1], "table", rename)
    found, out = compare(capsys, *pair)
    assert found["only"] == [["ras ratio=0.25"], ["ras ratio=0.3"]]
    assert found["cells"] == 3
    assert "3 cells in both, 3 of them of the same id; by id: 3 steps is three steps" in out
    assert "only in the first: ras ratio=0.25" in out
    assert "only in the second: ras ratio=0.3" in out


def test_committed_studies_are_compared_without_their_images(tmp_path, capsys):
    names = ("matrix-sd3", "matrix-flux")
    for name in names:
        shutil.copytree(
            EMBEDDED / name, tmp_path / name, ignore=shutil.ignore_patterns("cells", "runs", "wandb")
        )
    found, out = compare(capsys, *(Stored(tmp_path / name) for name in names))
    labels = [set(pd.read_parquet(tmp_path / name / "table.parquet").label) for name in names]
    assert found["cells"] == len(set.intersection(*labels)) > 0
    assert [set(only) for only in found["only"]] == [labels[0] - labels[1], labels[1] - labels[0]]
    assert (found["identical"], found["images"]) == (0, 0)
    assert "images: not here, not compared" in out
    assert found["differs"]["model.path"] == ["assets/sd3_tiny", "assets/flux_tiny"]
    row = figures(found, "fora interval=2")["clip_score[emoji]"]
    a, b = (pd.read_parquet(tmp_path / name / "samples.parquet") for name in names)
    a, b = (x[x["label"] == "fora interval=2"].set_index("key")["clip_score[emoji]"] for x in (a, b))
    assert row["value"] == pytest.approx((b - a).mean(), rel=1e-4)
    assert row["low"] < row["value"] < row["high"]


def test_name_keeps_it_elsewhere(pair, capsys):
    """What is in a label or a path is no markup."""

    def rename(frame):
        frame["label"] = frame["label"].replace({"3 steps": "<b>|"})

    for study in pair:
        rewrite(study, "table", rename)
    found, _ = compare(capsys, *pair, "name=kept")
    text = (pair[0].folder.parent / "kept" / "compare.md").read_text("utf-8")
    assert r"| &lt;b>\| | SSIM |" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(found["rows"])
    assert {line.replace(r"\|", "").count("|") for line in lines} == {7}
    assert not [file for study in pair for file in study.folder.glob("compare*")]


def test_refused(pair, tmp_path, capsys):
    a, b = (study.folder for study in pair)
    (b / "table.parquet").unlink()
    none = tmp_path / "other"
    shutil.copytree(a, none)
    rewrite(Stored(none), "table", lambda frame: frame.update(frame[["label", "cell"]] + "x"))
    bare = shutil.copytree(a, tmp_path / "bare")
    (bare / "samples.parquet").unlink()
    for arguments, message in {
        (
            f"compare=[{a},{bare}]",
            "versus=dense",
        ): f"{bare} has no samples.parquet",
        (f"compare=[{bare},{a}]", "versus=dense"): f"{bare} has no samples.parquet",
        (f"compare=[{a}]",): "give two studies, compare=[results/A,results/B]",
        (f"compare=[{a},{b},{none}]",): "give two studies",
        (f"compare=[{a},{b}]",): f"{b} has no table yet; rescore={b} makes it",
        (f"compare=[{a},{none}]",): "they have no cell in common: dense, ",
        (f"compare=[{a},{tmp_path}/nun]",): "no study; ",
        (
            f"compare=[{a},{none}]",
            "cost=flops",
        ): "cost=flops: only name,",
        (f"compare=[{a},{none}]", "name=a/b"): "name=a/b: must be letters, digits",
        (f"compare=[{a},{none}]", "name=.x"): "and begin with a letter or digit",
        (f"compare=[{a},{none}]", "show="): "show=... and compare=...: one at a time",
    }.items():
        assert run.main([*arguments, f"results={tmp_path}"]) == 2
        assert message in capsys.readouterr().err

"""Maps and trajectories: on a study of a tiny pipeline with every kind of method in it."""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import spearmanr

import run
from fovea.study.commands import rescore
from fovea.study.picture import pixels
from fovea.study.plan.cells import Cell
from fovea.study.records import FlopsRecord
from fovea.study.report.maps import GAP, MARGIN, TILE, dense_name, sheet
from fovea.study.report.report import draw_maps
from fovea.study.report.style import enlarged, faded, figure, spaced, spread
from fovea.study.report.traces import Traced, chosen, records, traced
from fovea.study.report.trajectories import departure, draw_rank_correlations, limits, line_styles, score_maps
from fovea.study.run.trace import Trace
from fovea.study.store import Store

POINTS = [
    "{method: ras, method.ratio: 0.5, method.start: 2}",
    "{method: ras, method.ratio: 1.0}",
    "{method: caching, cache: fora, method.cache.interval: 2}",
    "{method: ralu, method.steps: 6}",
]
FIGURES = ["focus", "scores", "departure", "regions"]


@pytest.fixture(scope="module")
def kinds(weights, prompts, tmp_path_factory):
    """A study with RAS, RAS switched off, a cache, RALU and step reduction."""
    results = tmp_path_factory.mktemp("kinds")
    size = ["model.steps=6", "model.height=64", "model.width=96", "n=3", "batch=2"]
    data = [f"model.path={weights}", f"prompts={prompts}", f"results={results}", "name=all"]
    swept = ["sweep=none", f"sweep.points=[{','.join(POINTS)}]", "sweep.curve=[0.5]", "metric=[psnr]"]
    assert run.main([*size, *data, *swept]) == 0
    return results / "all"


@pytest.fixture
def opened(kinds):
    plan, _ = rescore.plan(kinds, [])
    return plan, Store(kinds)


def text(file):
    return " ".join(ET.parse(file).getroot().itertext())


def drawn(file):
    """Pixels of an image, and that it is no empty page."""
    values = np.asarray(Image.open(file).convert("RGB"))
    assert values.std() > 10
    return values


def test_every_figure_is_there_and_says_what_it_shows(kinds):
    for name in FIGURES:
        assert drawn(kinds / f"{name}.png").shape[1] > 600
        assert "dense" in text(kinds / f"{name}.svg")
        assert "mathdefault" not in text(kinds / f"{name}.svg")
    assert "ras ratio=0.5" in text(kinds / "scores.svg")
    for label in ("ras ratio=0.5", "fora interval=2", "ralu steps=6", "3 steps"):
        assert label in text(kinds / "departure.svg")
    assert "ratio=1.0" not in text(kinds / "departure.svg")  # it does what dense does
    assert "fora" not in text(kinds / "scores.svg")
    assert "edges" in text(kinds / "regions.svg")
    assert "a random ranking: 0" in text(kinds / "scores.svg")


def test_the_rows_are_the_traces(kinds, opened):
    table = pd.read_parquet(kinds / "traces.parquet")
    for one in traced(*opened):
        for key, trace in one.traces.items():
            rows = table[(table["cell"] == one.cell.id) & (table["key"] == key)].sort_values("step")
            assert (rows["label"] == one.cell.label).all()
            assert rows["sigma"].tolist() == [*trace.sigma.tolist(), 0.0]
            np.testing.assert_allclose(
                rows["error_mean"], [*trace.error.mean(1), trace.end.mean()], rtol=1e-6
            )
            np.testing.assert_allclose(
                rows["error_p95"][:-1], np.quantile(trace.error, 0.95, axis=1), rtol=1e-5
            )
            np.testing.assert_allclose(rows["tokens"][:-1], trace.had.mean(1), rtol=1e-6)
            by_scipy = [spearmanr(a, b).statistic for a, b in zip(trace.score, trace.score[1:], strict=False)]
            np.testing.assert_allclose(rows["rank_correlation"][1:-1], by_scipy, rtol=1e-6)
            assert rows["rank_correlation"].isna().tolist() == [True, *[False] * (len(rows) - 2), True]
    assert set(table["key"]) == {s.key for s in opened[0].samples[:2]}
    assert (table[table["label"] == "dense"]["error_mean"] == 0).all()


def test_a_study_without_traces_is_drawn_as_before(kinds, tmp_path):
    """Of an older study what needs traces is not there, nor left from an earlier report."""
    folder = shutil.copytree(kinds, tmp_path / "older")
    for traces in folder.glob("cells/*/traces"):
        shutil.rmtree(traces)
    plan, _ = rescore.plan(folder, [])
    draw_maps(plan, Store(folder), folder)
    left = {f.name for f in folder.iterdir()}
    assert {"focus.png", "focus.svg"} <= left
    assert not left & {"scores.png", "scores.svg", "departure.png", "regions.svg", "traces.parquet"}


def test_where_every_token_runs_there_is_no_focus(kinds, tmp_path):
    folder = shutil.copytree(kinds, tmp_path / "dense")
    for shares in folder.glob("cells/*/focus"):
        shutil.rmtree(shares)
    plan, _ = rescore.plan(folder, [])
    draw_maps(plan, Store(folder), folder)
    assert not list(folder.glob("focus.*"))
    assert (folder / "departure.png").is_file()


def test_the_same_study_gives_the_same_files(kinds, tmp_path):
    folder = shutil.copytree(kinds, tmp_path / "again")
    plan, _ = rescore.plan(folder, [])
    draw_maps(plan, Store(folder), folder)
    for name in [*(f"{name}.svg" for name in FIGURES), "scores.png"]:
        assert (folder / name).read_bytes() == (kinds / name).read_bytes()


def test_a_method_whose_baseline_failed_departs_from_nothing(opened, tmp_path):
    """No error is known: its ranks are drawn, a departure is not."""
    plan, store = opened
    known = traced(plan, store)
    bare = {key: Trace(t.grid, t.sigma, t.had, t.score) for key, t in known[1].traces.items()}
    assert Traced(known[1].cell, bare).departure().shape == (0, 7)
    assert not departure(plan, store, [known[0], Traced(known[1].cell, bare)], tmp_path)
    assert score_maps(plan, store, [known[0], Traced(known[1].cell, bare)], tmp_path)
    assert all(np.isnan(row["error_mean"]) for row in records([Traced(known[1].cell, bare)], False))


def test_every_baseline_has_its_line_and_no_line_leaves_the_plot(opened, tmp_path):
    """Of several models each has its own dense run; here the second one's scores turn over at each step."""
    plan, store = opened
    dense, ras, *_ = traced(plan, store)
    turn = (-1.0) ** np.arange(len(dense.sigma))[:, None]
    turning = {k: replace(t, score=t.score[:1] * turn) for k, t in dense.traces.items()}
    other = Traced(replace(dense.cell, id="other", label="other dense"), turning)
    with figure(9, 4) as made:
        draw_rank_correlations(
            made.subfigures(1, 1), store, [dense, other], [ras, replace(other, cell=ras.cell)]
        )
        (axis,) = made.subfigs[0].axes
        lines = np.concatenate([line.get_ydata() for line in axis.lines])
        assert np.nanmin(lines) == -1
        assert axis.get_ylim()[0] < -1
        names = [text.get_text() for text in axis.texts]
        assert {"dense", "other dense"} <= set(names)
    assert score_maps(plan, store, [dense, other, ras], tmp_path)
    assert "Score maps of dense: how" in text(tmp_path / "scores.svg")


def test_a_dense_image_is_named_where_cells_have_several_baselines(opened):
    plan, _ = opened
    dense, ras = plan.cells[:2]
    assert dense_name(plan, [ras]) == "dense image"
    assert dense_name(plan, [ras, replace(ras, dense="other")]) == dense.label


# which cells, and where their names go


class Flops:
    """A store that knows how many FLOPs each cell took."""

    def samples(self, cell):
        kind, number = cell.rsplit(maxsplit=1)
        flops = 10**6 if kind == "dense" else round(10**6 / float(number))
        return SimpleNamespace(flops=FlopsRecord(cell=cell, images=1, counted=flops, closed=flops))


def test_the_contact_sheet_has_every_image_in_its_place_and_grey_for_a_missing_one(opened, tmp_path):
    plan, store = opened
    store.distrust(store.image(plan.cells[1].id, plan.keys[0]))
    sheet(plan, store, tmp_path)
    shown, tall = drawn(tmp_path / "grid.png"), round(TILE * 64 / 96)
    across = round((shown.shape[1] - MARGIN) / len(plan.cells))
    for i, key in enumerate(reversed(plan.keys)):
        for j, cell in enumerate(plan.cells):
            bottom, left = shown.shape[0] - i * (tall + GAP), MARGIN + j * across
            file = store.finished(cell.id, key)
            image = Image.fromarray(pixels(file) if file else np.full((1, 1, 3), 245, np.uint8))
            expected = np.asarray(image.resize((TILE, tall), Image.Resampling.LANCZOS))
            assert np.array_equal(shown[bottom - tall : bottom, left : left + TILE], expected)


def cells(**kinds):
    """Of each class and series, by speedup."""
    return [
        Cell(
            f"{series} {speed}",
            f"{series} at {speed}",
            "method",
            series,
            {},
            {"_target_": target},
            {},
            "dense 1",
            False,
            {},
        )
        for target, of in kinds.items()
        for series, speeds in of.items()
        for speed in speeds
    ]


def test_few_cells_are_all_drawn():
    every = cells(Caching={"fora": [2, 4]}, RAS={"ras": [1.5, 2, 3]})
    assert chosen(every, Flops()) == every


def test_of_many_each_method_is_drawn_by_what_is_nearest_to_twofold():
    caches = {
        name: [1.9 + i / 100, 4] for i, name in enumerate(["fora", "teacache", "fbcache", "taylorseer"])
    }
    every = cells(Caching=caches, RAS={"ras": [1.2, 2.2, 4], "ras taylor": [2.5]}, RALU={"ralu": [1.8, 4]})
    names = [cell.id for cell in chosen(every, Flops())]
    assert names == [
        *("teacache 1.91", "fbcache 1.92", "taylorseer 1.93"),
        *("ras 1.2", "ras 2.2", "ras taylor 2.5"),
        *("ralu 1.8", "ralu 4"),
    ]
    assert [cell.id for cell in chosen(every, Flops(), 3)] == ["taylorseer 1.93", "ras 2.2", "ralu 1.8"]


def test_each_series_looks_its_own_way_and_settings_pale():
    every = cells(A={f"s{i}": [2] for i in range(7)}, B={"ras": [2, 4]})
    found = list(line_styles(every).values())
    assert len({(str(one["color"]), str(one["linestyle"])) for one in found}) == 9
    assert sum(found[-1]["color"]) > sum(found[-2]["color"])


def test_names_keep_their_distance_and_their_order():
    at = [0.5, 0.5, 0.52, 0.9, 0.1, 0.89]
    found = spaced(at, 0.05)
    assert np.diff(np.sort(found)).min() == pytest.approx(0.05)
    assert np.argsort(found, kind="stable").tolist() == np.argsort(at, kind="stable").tolist()
    assert found[4] == 0.1
    assert np.mean(found) == pytest.approx(np.mean(at))


def test_a_label_is_drawn_as_written(kinds, tmp_path):
    """Whatever its user calls a cell: not as mathematics, which would end the report where it is none."""
    folder = shutil.copytree(kinds, tmp_path / "named")
    record = json.loads((folder / "provenance.json").read_text("utf-8"))
    for cell in record["cells"].values():
        cell["label"] += r" $\nonsense{$ <b> 🦊"
    (folder / "provenance.json").write_text(json.dumps(record))
    plan, _ = rescore.plan(folder, [])
    draw_maps(plan, Store(folder), folder)
    for name in FIGURES:
        assert r"$\nonsense{$" in text(folder / f"{name}.svg").replace("\n", "")


def test_panels():
    assert spread(np.array([0, 2, 4, 6, 8]), 3) == [0, 4, 8]
    assert spread(np.arange(2), 5) == [0, 1]
    image, ran = np.full((4, 6, 3), 0.2), np.array([[1, 0, 1], [0, 1, 0.5]])
    shown = faded(image, ran)
    assert (shown[:2, :2] == 0.2).all()
    assert (shown[:2, 2:4] > 0.8).all()
    assert 0.2 < shown[3, 5, 0] < 0.8
    assert enlarged(ran, image.shape).shape == (4, 6)
    low, high = limits([Trace((1, 2), np.ones(1), np.ones((1, 2)), np.ones((1, 2)), np.array([[0, 0.5]]))])
    assert low == 0.5 < high


def test_where_the_last_step_alone_departs_there_is_a_scale_all_the_same():
    """As in two steps: both start where the dense ones do."""
    low, high = limits([Trace((1, 2), np.ones(2), np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2)))])
    assert 0 < low < high

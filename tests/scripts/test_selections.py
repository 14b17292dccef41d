"""scripts/selections.py: differences in pairs and shares of the oracle's, on scores made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fovea.eval.interval import Interval
from fovea.eval.statistics import paired_difference
from fovea.study.config.compose import load, whole
from scripts import selections

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "results/embedded"
MODELS = ("lumina", "sd3", "flux")
LABELS = {
    "dense": 99.0,
    "ras ratio=0.25 selection=random": 20.0,
    "ras ratio=0.25 selection=oracle (diagnosis)": 28.0,
    "ras ratio=0.25 selection=age": 22.0,
    "ras ratio=0.25 selection=random stale=taylor": 10.0,
    "ras ratio=0.25 selection=oracle stale=taylor (diagnosis)": 20.0,
    "ras ratio=0.25 selection=error ageing=1 stale=taylor": 15.0,
}


@pytest.fixture
def stored(tmp_path):
    """A study of eight images, each rule as far from random tokens on all of them."""
    own = np.random.default_rng(0).normal(size=8)
    rows = [(f"image{i}", label, psnr + own[i]) for label, psnr in LABELS.items() for i in range(8)]
    (tmp_path / "selections-lumina").mkdir()
    table = pd.DataFrame(rows, columns=["key", "label", "psnr"])
    table.to_parquet(tmp_path / "selections-lumina/samples.parquet")
    return tmp_path


def test_each_rule_has_its_share_of_the_oracle_that_keeps_as_it_does(stored):
    found = selections.differences(stored, "selections")
    shares = {rule: selections.share(found, rule, model) for rule, model in found}
    assert shares == pytest.approx(
        {
            "selection=oracle": 1.0,
            "selection=age": 0.25,
            "selection=oracle stale=taylor": 1.0,
            "selection=error ageing=1 stale=taylor": 0.5,
        }
    )
    samples = pd.read_parquet(stored / "selections-lumina/samples.parquet")
    pair = (
        samples[samples.label == f"ras ratio=0.25 selection={rule}"]
        .set_index("key")
        .psnr.sort_index()
        .to_numpy()
        for rule in ("age", "random")
    )
    assert found["selection=age", "lumina"] == paired_difference(*pair, pool="decibel", worse=None)


def test_bold_is_what_differs_after_holms_correction():
    rows = {"selection=change": (1.0, 0.001), "selection=age": (0.5, 0.03), "selection=oracle": (4.0, 0.03)}
    found = {
        (rule, "lumina"): Interval(value, value / 2, value * 2, 0.95, p) for rule, (value, p) in rows.items()
    }
    lines = selections.markdown(found).splitlines()
    assert ["**" in line for line in lines[-3:]] == [True, False, False]


def bold(table):
    """`rule model` of every entry in bold."""
    head, _, *rows = ([part.strip() for part in x.strip("|").split("|")] for x in table.splitlines()[2:])
    return {
        f"{row[0]} {model}" for row in rows for model, x in zip(head[1:], row[1:], strict=True) if "**" in x
    }


def committed(name):
    """Differences, table and docs/results.md of the stored studies; the table stands in the page."""
    found = selections.differences(STORED, name)
    text, page = selections.markdown(found), (ROOT / "docs/results.md").read_text("utf-8")
    assert text == (STORED / name / "table.md").read_text()
    assert text.strip() in page
    return found, text, " ".join(page.split())


def spread(found, rule):
    """`least to greatest` share of the oracle's gain over the models."""
    shares = [selections.share(found, of, model) for of, model in found if of == rule]
    return f"{min(shares) * 100:.0f} to {max(shares):.0%}"


def test_the_committed_table_and_the_sentences_are_of_the_stored_scores():
    found, text, said = committed("selections")
    assert f"(`selection=edges`) find {spread(found, 'selection=edges ageing=1')} of the oracle's" in said
    assert f"(`selection=change`), {spread(found, 'selection=change ageing=1')}" in said
    assert f"of its neighbours, {spread(found, 'selection=neighbours ageing=1')}" in said
    assert f"deviation finds {spread(found, 'high_ratio=0')} at its better end" in said
    assert f"finds {spread(found, 'selection=error ageing=1 stale=taylor')} of a larger gain" in said
    worse = {model for model in MODELS if f"high_ratio=1 {model}" in bold(text)}
    assert worse == {*MODELS}
    assert "the paper's is worse than random tokens on every model" in said
    assert all(found["high_ratio=1", model].value < 0 for model in worse)


def test_the_sentences_on_ten_steps_are_of_the_stored_scores():
    found, text, said = committed("selections10")
    assert f"comes closer there, {spread(found, 'high_ratio=0')} at its highest end" in said
    assert f"Change times age finds {spread(found, 'selection=change ageing=1')}" in said
    assert not {f"selection=age {model}" for model in MODELS} & bold(text)
    edges = {model for model in MODELS if f"selection=edges ageing=1 {model}" in bold(text)}
    assert edges == {"sd3", "flux"}
    assert "edges times age are not told apart from random tokens on `lumina_tiny`" in said
    gain = {model: found["selection=oracle stale=taylor", model].value for model in MODELS}
    less = {model: found["selection=oracle", model].value for model in MODELS}
    assert gain["flux"] > less["flux"] + 2
    assert abs(gain["sd3"] - less["sd3"]) < 0.05
    assert gain["lumina"] < less["lumina"] - 1


def test_the_oracle_is_in_the_tables_as_a_diagnosis_and_unranked():
    for file in STORED.glob("selections*-*/table.parquet"):
        rows = pd.read_parquet(file).set_index("label").filter(like="selection=oracle", axis="index")
        assert len(rows) == 2
        assert set(rows.role) == {"diagnosis"}
        assert (rows.flops_ratio < 1).all()
        assert rows.psnr_front.isna().all()


def test_the_table_has_a_row_for_each(stored):
    text = selections.markdown(selections.differences(stored, "selections"))
    assert "| rule | lumina |" in text
    assert "| selection=age | **+2.00 [2.00, 2.00]**, 25% |" in text


def test_the_sweep_has_both_controls_of_every_rule():
    points = whole(load(["sweep=selections"]))["sweep"]["points"]
    kept = {(p["method.selection"], p.get("method.stale")) for p in points if "method.selection" in p}
    for stale in {stale for _, stale in kept}:
        assert {("random", stale), ("oracle", stale)} <= kept


def test_without_studies_it_says_what_to_run(tmp_path):
    with pytest.raises(SystemExit, match="run the studies first"):
        selections.differences(tmp_path, "selections")

"""scripts/ras_ends.py, and what docs/results.md says of RAS's ends: held to the stored images' scores."""

from pathlib import Path

import pandas as pd
import pytest

from fovea.eval.decisions import holm
from fovea.eval.statistics import paired_difference
from scripts import ras_ends
from scripts.ras_ends import CELLS, ORACLE, RANDOM

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "results/embedded"
LOW, HIGH, _ = CELLS.values()


@pytest.fixture(scope="module")
def found():
    return ras_ends.differences(STORED, "ras-ends")


def test_the_table_is_that_of_the_stored_scores(found):
    text = ras_ends.markdown(found)
    assert text == (STORED / "ras-ends/table.md").read_text()
    assert text.strip() in (ROOT / "docs/results.md").read_text()
    assert len(found) == 2 * 3 * 3


def test_a_difference_is_that_of_the_same_images(found):
    samples = pd.read_parquet(STORED / "ras-ends-lumina/samples.parquet")
    one, other = (samples[samples.label == label].set_index("key").psnr for label in (HIGH, RANDOM))
    assert len(one) == 24
    by_hand = paired_difference(one.sort_index(), other.sort_index(), pool="decibel", worse=None)
    assert found["psnr", "lumina", HIGH] == by_hand


def test_which_end_beats_random_tokens_differs_between_the_models(found):
    """As docs/results.md says, and as each model's file has it; the oracle is far above both."""
    p = holm({key: interval.p for key, interval in found.items()})
    for model, sign in (("lumina", 1), ("sd3", -1), ("flux", -1)):
        low, high = found["psnr", model, LOW], found["psnr", model, HIGH]
        assert high.value * sign > 0 > low.value * sign
        assert p["psnr", model, HIGH] < 0.05
        if model != "flux":  # there the lowest are not told apart from random tokens
            assert p["psnr", model, LOW] < 0.05
        best = found["psnr", model, ORACLE]
        assert best.low > max(low.high, high.high)
        assert 0 < max(low.value, high.value) / best.value < 0.25


def test_the_highest_end_is_what_the_stored_matrix_ran(found):
    """The same images by the matrix and by this study, of other commits."""
    for model in ("lumina", "flux", "sd3"):
        samples = pd.read_parquet(STORED / f"matrix-{model}/samples.parquet")
        table = samples.pivot(index="key", columns="label", values="psnr")
        old = paired_difference(table["ras ratio=0.25"], table[RANDOM], pool="decibel", worse=None)
        assert found["psnr", model, HIGH].value == pytest.approx(old.value, abs=0.02)


def test_the_oracle_is_in_the_tables_as_a_diagnosis_and_unranked():
    for model in ("lumina", "flux", "sd3"):
        table = pd.read_parquet(STORED / f"ras-ends-{model}/table.parquet").set_index("label")
        row = table.loc[ORACLE]
        assert row["role"] == "diagnosis"
        assert row["flops_ratio"] < 1
        assert pd.isna(row["psnr_front"])

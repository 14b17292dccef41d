"""What docs/review.md says of a paper's table, held to the stored study."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from fovea.study.analysis.contrasts import Contrast, against, controlled, of_study
from fovea.study.stored import Stored

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "results" / "experiments"
FOLDER = EXPERIMENTS / "ralu_table1_sd3-tiny"
PSNR, CLIP, FD = "psnr", "clip_score[emoji]", "fd[emoji]"
PAGE = " ".join((ROOT / "docs" / "review.md").read_text("utf-8").split())


@cache
def versus(control: str, folder: Path = FOLDER) -> dict[tuple[str, str], Contrast]:
    cells = of_study(Stored(folder))
    others = [cell for cell in cells if cell.label == control]
    return {(c.cell, c.score): c for c in against(cells, others, control)}


@pytest.mark.parametrize(
    ("cell", "control", "score", "size", "verdict", "said"),
    [
        ("TaylorSeer 2x", "14 steps", PSNR, "3.0", "better", "TaylorSeer by {} dB"),
        ("Δ-DiT", "14 steps", PSNR, "0.5", "better", "Δ-DiT by {} dB"),
        ("TaylorSeer 3x", "9 steps", CLIP, "7.4", "worse", "{} points of CLIP score below 9 steps"),
        ("RAS 2x", "14 steps", PSNR, "3.4", "worse", "by {} dB and 2.3 points of CLIP score at 1.78×"),
        ("RAS 2x", "14 steps", CLIP, "2.3", "worse", "3.4 dB and {} points of CLIP score at 1.78×"),
    ],
)
def test_differences(cell, control, score, size, verdict, said):
    found = versus(control)[cell, score]
    assert f"{abs(found.by.value):.1f}" == size
    assert found.verdict == verdict
    assert said.format(size) in PAGE


def test_ras_at_3x_against_steps_at_equal_flops():
    row = pd.read_parquet(FOLDER / "table.parquet").set_index("label").loc["RAS 3x"]
    assert row[f"{PSNR}_gain_high"] < 0
    assert row[f"{CLIP}_gain_high"] < 0
    assert max(row[f"{PSNR}_gain_holm"], row[f"{CLIP}_gain_holm"]) < 0.05
    size = f"at 2.57× by {-row[f'{PSNR}_gain']:.1f} dB and {-row[f'{CLIP}_gain']:.1f} points"
    assert f"{size} than steps at the same FLOPs" in PAGE


def test_what_is_not_told_apart():
    for cell in ("TaylorSeer 2x", "Δ-DiT"):
        assert versus("14 steps")[cell, CLIP].verdict == "not told apart"
    for cell, control in (("RALU 2x", "14 steps"), ("RALU 3x", "9 steps")):
        assert {versus(control)[cell, score].verdict for score in (CLIP, FD)} == {"not told apart"}
        assert (cell, PSNR) not in versus(control)
    by = versus("14 steps")["RALU 2x", CLIP].by
    assert f"−{-by.low:.1f} to +{by.high:.1f} points of CLIP score at 2×" in PAGE


def test_costs_beside_the_printed_ones():
    table = pd.read_csv(FOLDER / "published.csv").set_index("cell")["speed_measured"]
    ralu, taylorseer, ras = (
        [f"{table[f'{name} {times}']:.2f}" for times in ("2x", "3x")]
        for name in ("RALU", "TaylorSeer", "RAS")
    )
    assert f"RALU is {ralu[0]} and {ralu[1]} where the paper has 1.94 and 3.02" in PAGE
    assert f"TaylorSeer {taylorseer[0]} and {taylorseer[1]} for 1.92 and 2.85" in PAGE
    assert f"{ras[0]} and {ras[1]} for 1.90 and 2.96" in PAGE


def test_on_flux_nothing_is_better_than_fewer_steps():
    folder = EXPERIMENTS / "ralu_table1_flux-tiny"
    five, seven = (versus(steps, folder) for steps in ("10 steps", "7 steps"))
    for found, cells in (
        (five, ("Δ-DiT", "TaylorSeer 5x", "RALU 5x")),
        (seven, ("TaylorSeer 7x", "RALU 7x")),
    ):
        assert "better" not in {c.verdict for (cell, _), c in found.items() if cell in cells}
    lost = -five["TaylorSeer 5x", CLIP].by.value, -seven["TaylorSeer 7x", CLIP].by.value
    assert f"{lost[0]:.1f} points of CLIP score at 5× and {lost[1]:.1f} at 7×" in PAGE
    natural = {(c.cell, c.score): c.verdict for c in controlled(of_study(Stored(folder)))}
    table = pd.read_parquet(folder / "table.parquet").set_index("label")
    assert natural["TaylorSeer 5x", CLIP] == "worse"
    assert table[f"{CLIP}_gain_holm"]["TaylorSeer 5x"] > 0.05
    for found, cell in ((five, "RALU 5x"), (seven, "RALU 7x")):
        assert {found[cell, score].verdict for score in (CLIP, FD)} == {"not told apart"}
    assert {f"{table.flops_ratio[f'TeaCache {times}']:.0f}" for times in ("5x", "7x")} <= {"22", "23"}
    assert table[CLIP]["TeaCache 5x"] < 20 < table[CLIP]["dense"]


def test_ras_table3():
    table = pd.read_parquet(EXPERIMENTS / "ras_table3-tiny" / "table.parquet").set_index("label")
    ratios = [
        f"{table.flops_ratio[f'{name} (tiny) RAS{cell}']:.2f}"
        for name, cell in (("sd3", "28-50"), ("sd3", "28-12.5"), ("lumina", "30-50"), ("lumina", "30-12.5"))
    ]
    assert "are {} and {} on the small SD3, {} and {} on the small Lumina-Next".format(*ratios) in PAGE
    halves = table.loc[["sd3 (tiny) RAS28-50", "lumina (tiny) RAS30-50"]]
    first, second = -halves[f"{CLIP}_gain"]
    assert f"{first:.1f} and {second:.1f} points of CLIP score are lost against steps" in PAGE
    assert [holm < 0.05 for holm in halves[f"{CLIP}_gain_holm"]] == [True, False]


@pytest.mark.parametrize("folder", sorted(EXPERIMENTS.iterdir()), ids=lambda folder: folder.name)
def test_every_cell_has_a_hundred_images(folder):
    assert (pd.read_parquet(folder / "table.parquet")["n"] == 100).all()

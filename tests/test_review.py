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
    assert len(pd.read_parquet(FOLDER / "table.parquet")) == 10
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


@cache
def table(experiment: str) -> pd.DataFrame:
    return pd.read_parquet(EXPERIMENTS / f"{experiment}-tiny" / "table.parquet").set_index("label")


def told(experiment: str, score: str) -> pd.Series:
    """The gains that are told apart from zero, by label."""
    rows = table(experiment)
    return rows[f"{score}_gain"][rows[f"{score}_gain_holm"] < 0.05]


def test_ras_in_few_steps():
    clip = told("ras_table1", CLIP)
    assert [*clip.index] == ["lumina (tiny) RAS10-25", "lumina (tiny) RAS6-12.5"]
    assert f"tokens is {clip.iloc[1]:.1f} points of CLIP score above the line between 5 and 4" in PAGE
    assert f"at a quarter it is {-clip.iloc[0]:.1f} points below" in PAGE
    assert not told("ras_table1", FD).filter(like="sd3").size


def test_the_grid_of_ras():
    clip, cheaper = told("ras_lumina_grid", CLIP), table("ras_lumina_grid").flops_ratio
    assert table("ras_lumina_grid")[f"{CLIP}_gain"].notna().sum() == 24
    worse, better = clip[clip < 0].index, clip[clip > 0].index
    assert f"Of 24 settings {len(worse)} have a CLIP score below" in PAGE
    assert cheaper[worse].max() < 5.5
    assert f"and {len(better)} above it, all at more than 7×" in PAGE
    assert cheaper[better].min() > 7


def test_ras_by_preference():
    nearer, clip = (told("ras_preference", score)["RAS15-25"] for score in (PSNR, CLIP))
    assert f"With 15 steps at a quarter of the tokens, {nearer:.1f} dB nearer" in PAGE
    assert f"and {-clip:.1f} points of CLIP score below them" in PAGE


def test_the_ablations_of_ras():
    ten, seven, all_steps = (
        versus(control, EXPERIMENTS / "ras_ablation-tiny")
        for control in ("RAS10-12.5", "RAS7-25 std", "RAS28-12.5")
    )
    lost = [ten["RAS10-12.5 no reset", score] for score in (PSNR, CLIP)]
    kept = ten["RAS10-12.5 no KV", PSNR], all_steps["RAS28-12.5 no KV", PSNR]
    assert {c.verdict for c in (*lost, *kept)} == {"worse"}
    sizes = [-c.by.value for c in (*lost, *kept)]
    said = "(10 steps) {:.1f} dB and {:.1f} points are lost, as in the paper; without kept keys and values"
    assert said.format(*sizes[:2]) in PAGE
    assert "values {:.1f} dB, and {:.1f} dB in 28 steps".format(*sizes[2:]) in PAGE
    for cell in ("RAS10-12.5 no starvation", "RAS10-12.5 static ratio"):
        assert {ten[cell, score].verdict for score in (PSNR, CLIP, FD)} == {"not told apart"}
    random = seven["RAS7-25 random", PSNR]
    assert random.verdict == "better"
    assert f"Random tokens are {random.by.value:.1f} dB nearer" in PAGE


def test_the_regions_and_jsd_of_ralu():
    folder = EXPERIMENTS / "ralu_selection-tiny"
    for times in ("5x", "7x"):
        found = versus(f"random {times}", folder)
        rules = (f"{rule} {times}" for rule in ("edges", "latent gradient", "variance"))
        assert {found[rule, score].verdict for rule in rules for score in (CLIP, FD)} == {"not told apart"}
    jsd = versus("7 steps", EXPERIMENTS / "ralu_jsd-tiny")
    assert {c.verdict for (cell, _), c in jsd.items() if cell.startswith("JSD")} == {"not told apart"}


def test_ralu_with_caches():
    clip, all_of_them = told("ralu_table2", CLIP), table("ralu_table2")[f"{CLIP}_gain"]
    three, two = (-clip[f"flux (tiny) RALU 5x + TaylorSeer {w}"] for w in ("W3", "W2"))
    assert f"With TaylorSeer it loses {three:.1f} points (W3) and {two:.1f} points (W2)" in PAGE
    delta = "flux (tiny) RALU 5x + Δ-DiT"
    assert delta not in clip
    assert f"with Δ-DiT, {-all_of_them[delta]:.1f} points, not told apart" in PAGE


@pytest.mark.parametrize("folder", sorted(EXPERIMENTS.iterdir()), ids=lambda folder: folder.name)
def test_every_cell_has_a_hundred_images(folder):
    assert (pd.read_parquet(folder / "table.parquet")["n"] == 100).all()

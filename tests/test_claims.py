"""What docs/results.md says of pairs of cells, held to the stored studies."""

import json
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from fovea.eval.statistics import paired_difference
from fovea.study.analysis.contrasts import Contrast, against, controlled, of_study
from fovea.study.stored import Stored

ROOT = Path(__file__).parents[1]
MODELS = ("lumina", "flux", "sd3")
PSNR, CLIP = "psnr", "clip_score[emoji]"
SCALED = "forecast basis=taylor_scaled order=1 schedule=dp"
TWICE, FOUR = "interval=3 warmup=5 phase=paper", "interval=4 warmup=1 phase=paper"
RESULTS, README = (
    " ".join((ROOT / name).read_text("utf-8").split()) for name in ("docs/results.md", "README.md")
)


@cache
def study(model: str) -> Stored:
    return Stored(ROOT / "results" / "embedded" / f"matrix-{model}")


@cache
def pairs(model: str) -> list[Contrast]:
    return controlled(of_study(study(model)))


def pair(model: str, cell: str, score: str, control: str = "") -> Contrast:
    """The cell and the control whose labels begin so."""
    found = [
        c
        for c in pairs(model)
        if c.cell.startswith(cell) and c.score == score and c.control.startswith(control)
    ]
    assert len(found) == 1, [f"{c.cell} less {c.control}" for c in found]
    return found[0]


def found(cell: str, score: str, control: str) -> list[Contrast]:
    return [pair(model, cell, score, control) for model in MODELS]


def spread(contrasts: list[Contrast], places: int = 0) -> str:
    """`a to b`, the least and the greatest difference in size."""
    sizes = sorted(abs(c.by.value) for c in contrasts)
    return f"{sizes[0]:.{places}f} to {sizes[-1]:.{places}f}"


def test_the_fitted_solver_is_nearest():
    twice, four = found("multistep", PSNR, "10 steps"), found("multistep", PSNR, "5 steps")
    assert {c.verdict for c in twice + four} == {"better"}
    assert f"{spread(twice)} dB nearer than ten steps, {spread(four)} dB nearer than five" in RESULTS
    assert f"(`method=multistep`) {spread(twice)} dB." in README
    for model in MODELS:
        rows = [
            row for row in study(model).records if row["role"] == "method" and row["psnr_gain"] is not None
        ]
        half = [row for row in rows if row["flops_ratio"] < 3]
        assert max(half, key=lambda row: row["psnr"])["label"] == "multistep"


def test_the_fitted_solvers_nearest_rival():
    subjects = {model: of_study(study(model)) for model in MODELS}

    def rival(model, cell, part):
        label = next(
            s.label for s in subjects[model] if s.label.startswith(SCALED) and ("full" in s.label) == part
        )
        pairs = against(subjects[model], subjects[model], label)
        return next(c for c in pairs if (c.cell, c.score) == (cell, PSNR))

    twice = [rival(model, "multistep", False) for model in MODELS]
    assert {c.verdict for c in twice} == {"better"}
    assert f"is {spread(twice, 1)} dB behind at half the FLOPs on every model" in RESULTS
    four = {model: rival(model, "multistep fourfold", True) for model in MODELS}
    assert {model for model, c in four.items() if c.verdict == "better"} == {"lumina"}
    assert f"and {four['lumina'].by.value:.1f} dB at a quarter on `lumina_tiny`" in RESULTS


def test_the_lead_holds_on_prompts_that_the_solver_was_not_fitted_on():
    def lead(model: str, cell: str, four: bool) -> float:
        samples = pd.read_parquet(ROOT / f"results/embedded/matrix-{model}/samples.parquet")
        later = samples[samples.label == "dense"].prompt_id.to_numpy()[8:]
        table = samples.pivot(index="prompt_id", columns="label", values="psnr").loc[later]
        (rival,) = (c for c in table if c.startswith(SCALED) and ("full" in c) == four)
        pair = table[cell].to_numpy(), table[rival].to_numpy()
        found = paired_difference(*pair, pool="decibel", worse=None)
        assert found.low > 0
        return found.value

    leads = sorted(lead(model, "multistep", False) for model in MODELS)
    four = lead("lumina", "multistep fourfold", True)
    assert f"the two leads are {leads[0]:.1f} to {leads[-1]:.1f} dB and {four:.1f} dB" in RESULTS


def test_who_is_not_told_apart_from_the_fitted_solver_at_half():
    close = {}
    for model in MODELS:
        subjects = of_study(study(model))
        versus = [c for c in against(subjects, subjects, "multistep") if c.score == PSNR]
        assert "better" not in {c.verdict for c in versus}
        tied = {c.cell.split()[0] for c in versus if c.verdict == "not told apart"}
        close[model] = tied & {"seacache", "easycache"}
    assert close == {"lumina": set(), "sd3": {"seacache"}, "flux": {"seacache", "easycache"}}
    assert "SeaCache on `sd3_tiny`, and SeaCache and EasyCache on `flux_tiny`, are not told apart" in RESULTS


def test_forecasts_at_chosen_and_at_even_steps():
    chosen = [
        c
        for basis in ("taylor ", "taylor_scaled", "meancache")
        for c in found(f"forecast basis={basis}", PSNR, "10 steps")
    ]
    even = [
        c for cache in ("taylorseer", "taylor_output") for c in found(f"{cache} {TWICE}", PSNR, "10 steps")
    ]
    assert {c.verdict for c in chosen + even} == {"better"}
    assert f"are {spread(chosen)} dB nearer than ten steps on every model" in RESULTS
    assert f"at well-chosen steps {spread(chosen)} dB" in README
    assert f"after five full ones {spread(even)} dB" in RESULTS
    four = [c for cache in ("taylorseer", "taylor_output") for c in found(f"{cache} {FOUR}", PSNR, "5 steps")]
    assert "even steps gain at most 2 dB" in RESULTS
    assert max(c.by.value for c in four) < 2


def test_caches_by_threshold_differ():
    far = [c for cache in ("seacache", "easycache") for c in found(cache, PSNR, "10 steps")]
    near = [c for cache in ("fbcache", "dbcache") for c in found(cache, PSNR, "10 steps")]
    assert {c.verdict for c in far + near} == {"better"}
    assert f"are {spread(far)} dB nearer than ten steps on every model" in RESULTS
    assert f"first-block cache and DBCache {spread(near)} dB" in RESULTS
    lost = found("fbcache", CLIP, "5 steps")
    assert {c.verdict for c in lost} == {"worse"}
    assert f"loses {spread(lost)} points" in RESULTS
    steps = ("10 steps", "5 steps")
    assert {c.verdict for s in steps for c in found("delta_dit", PSNR, s)} == {"worse"}
    assert {c.verdict for s in steps for c in found("magcache", PSNR, s)} == {"not told apart"}
    assert max(abs(c.by.value) for s in steps for c in found("fora", PSNR, s)) < 1


def of_ras(why: str, score: str, four: bool, setting: str = "") -> list[Contrast]:
    return [
        c
        for model in MODELS
        for c in pairs(model)
        if c.why == why and c.score == score and ("steps=8" in c.cell) == four and setting in c.cell
    ]


def test_ras_by_its_end_and_by_the_last_change():
    gains = [
        row["psnr_gain"]
        for model in MODELS
        for row in study(model).records
        if re.fullmatch(r"ras ratio=\S+ high_ratio=0", row["label"])
    ]
    assert f"**RAS** is {min(gains):.0f} to {max(gains):.0f} dB nearer than step reduction" in RESULTS
    ends = of_ras("one end of the ranking or the other", PSNR, False)
    assert {c.verdict for c in ends} == {"worse"}
    assert f"Its highest end is {spread(ends, 1)} dB nearer than the paper's" in RESULTS
    change = of_ras("chosen or random tokens", PSNR, False, "selection=change")
    assert {c.verdict for c in change} == {"better"}
    assert f"are {spread(change, 1)} dB nearer than random ones on every model" in RESULTS
    assert (
        f"RAS is {min(gains):.0f} to {max(gains):.0f} dB closer to the dense images than ten steps" in README
    )
    forecast = of_ras("forecast or reused tokens", PSNR, True)
    assert {c.verdict for c in forecast} == {"worse"}
    assert f"(`stale=taylor`) costs {spread(forecast)} dB there" in RESULTS


@pytest.mark.parametrize("model", MODELS)
def test_edges_are_not_told_apart_from_random_regions(model):
    assert "edges are not told apart from random regions anywhere" in RESULTS
    edges = [c for c in pairs(model) if c.why == "chosen or random regions"]
    assert len({c.cell for c in edges}) == 2
    assert {c.verdict for c in edges} == {"not told apart"}


def test_images_of_half_size_draw_their_prompts_where_five_steps_do_not():
    def gains(name, model):
        rows = [
            r
            for r in study(model).records
            if r["label"].startswith(name) and r["flops_ratio"] > 3 and "random" not in r["label"]
        ]
        return rows[0][f"{CLIP}_gain"], rows[0][f"{CLIP}_gain_low"]

    (sd3, low), (flux, flux_low) = gains("ralu steps", "sd3"), gains("ralu steps", "flux")
    assert min(low, flux_low) > 0 > gains("ralu steps", "lumina")[0]
    assert f"{sd3:.0f} and {flux:.0f} points of `clip_score[emoji]` above the curve" in RESULTS
    three = [gains("mrflow", model) for model in ("sd3", "flux", "lumina")]
    assert min(low for _, low in three) > 0
    assert (
        "MrFlow, a small image upscaled, is {:.0f}, {:.0f} and {:.0f} points".format(
            *(gain for gain, _ in three)
        )
        in RESULTS
    )


def test_at_half_no_prompt_score_is_better_than_ten_steps():
    assert "At half the FLOPs no cache and no solver has a better prompt score than ten steps" in RESULTS
    found = [c for m in MODELS for c in pairs(m) if c.score == CLIP and c.control == "10 steps"]
    assert len(found) > 40
    assert "better" not in {c.verdict for c in found}


def test_whole_steps_left_out_beside_ras_cost():
    cost = [
        c
        for m in MODELS
        for c in pairs(m)
        if c.cell.startswith("ras_caching")
        and "start=2" in c.cell
        and c.score == PSNR
        and c.why == "composition or the method alone"
    ]
    assert {c.verdict for c in cost} == {"worse"}
    assert f"costs {spread(cost)} dB at a quarter against RAS alone" in RESULTS


@cache
def kept_text(model: str) -> Stored:
    return Stored(ROOT / "results" / "embedded" / f"kept-text-{model}")


def kept_text_pairs(start: str, four: bool, less: str) -> list[Contrast]:
    """Return the cells whose whole label matches `start`, less the one matching `less`, of both models."""
    found = []
    for model in ("flux", "sd3"):
        subjects = of_study(kept_text(model))
        (control,) = (s.label for s in subjects if re.fullmatch(less, s.label))
        versus = against(subjects, subjects, control)
        found += [c for c in versus if re.fullmatch(start, c.cell) and ("steps=8" in c.cell) == four]
    return found


def test_kept_text_is_not_told_apart_at_equal_tokens():
    assert "kept text is not told apart from the running one in any score, at half or at a quarter" in RESULTS
    for less, four in ((r"ras ratio=\S+", False), (r"ras ratio=\S+ steps=8 start=2", True)):
        ratios = {"flux": (0.197, 0.155), "sd3": (0.127, 0.083)}
        cells = "|".join(str(pair[four]) for pair in ratios.values())
        found = kept_text_pairs(rf"ras_kept_text ratio=({cells})( steps=8 start=2)?", four, less)
        assert {c.score for c in found} >= {PSNR, "ssim", CLIP}
        assert {c.verdict for c in found} == {"not told apart"}


def test_kept_text_buys_image_tokens():
    half, chosen = r"ras ratio=\S+", r" selection=edges ageing=1"
    more = r"ras_kept_text ratio=(0.346|0.319)"
    plain = [c for c in kept_text_pairs(more, False, half) if c.score == PSNR]
    edges = [c for c in kept_text_pairs(more + chosen, False, half + chosen) if c.score == PSNR]
    both = [c for c in kept_text_pairs(more + chosen, False, half) if c.score == PSNR]
    assert {c.verdict for c in plain + edges + both} == {"better"}
    assert (
        f"it is {spread(plain, 1)} dB nearer to the dense image, and {spread(edges, 1)} dB where" in RESULTS
    )
    assert f"together are {spread(both, 1)} dB nearer than RAS" in RESULTS


def test_kept_text_at_a_quarter():
    quarter, chosen = " steps=8 start=2", " selection=edges ageing=1"
    more = r"ras_kept_text ratio=(0.302|0.278)" + quarter
    found = kept_text_pairs(more, True, r"ras ratio=\S+" + quarter)
    edges = kept_text_pairs(more + chosen, True, r"ras ratio=\S+" + quarter + chosen)
    most = max(c.by.value for c in found + edges if c.score == PSNR)
    assert f"they bring at most {most:.1f} dB" in RESULTS
    (flux, sd3) = (c for c in edges if c.score == CLIP)
    assert (flux.verdict, sd3.verdict) == ("not told apart", "better")
    assert f"in prompt score {sd3.by.value:.1f} points on `sd3_tiny`" in RESULTS


def test_the_table_of_kept_text():
    rows = {model: kept_text(model).records for model in ("sd3", "flux")}
    lines = (ROOT / "docs/results.md").read_text("utf-8").split("kept text -->\n")[1].splitlines()[2:-1]
    for i, line in zip(range(1, 6), lines, strict=True):
        for model, cell in zip(("sd3", "flux"), line.split("|")[2:4], strict=True):
            row = rows[model][i]
            assert cell.strip().startswith(f"{row['psnr']:.2f}")
            if "," in cell:
                assert f"FLOPs {row['flops_ratio']:.2f}x fewer" in cell


def test_the_h100_beside_its_forecasts():
    said = (ROOT / "docs" / "papers.md").read_text("utf-8")
    told = said.split("<!-- h100 -->")[1].split("<!-- end h100 -->")[0].strip().splitlines()[2:]
    files = (ROOT / "results" / "h100" / model / "forecast.json" for model in ("sd3", "flux"))
    sd3, flux = ({row["label"]: row for row in json.loads(file.read_text())["rows"]} for file in files)

    def seconds(row: dict, *keys: str) -> list[str]:
        return ["" if row[key] is None else f"{row[key]:.2f}" for key in keys]

    assert [[part.strip() for part in line.split("|")[1:-1]] for line in told] == [
        [
            label,
            *seconds(row, "measured", "forecast"),
            *seconds(flux[label], "measured", "first call", "forecast"),
        ]
        for label, row in sd3.items()
    ]
    full = [flux[label] for label in ("dense", "14 steps") if label in flux]
    assert all(abs(row["first call"] / row["forecast"] - 1) < 0.05 for row in full)
    half = flux["ras ratio=0.5"]
    assert flux["dense"]["measured"] / half["measured"] == pytest.approx(1.47, abs=0.005)
    gains = [
        sd3["dense"]["measured"] / row["measured"] for label, row in sd3.items() if label.startswith("ras")
    ]
    assert 0.95 < min(gains) < max(gains) < 1.25
    launch = json.loads((ROOT / "results/h100/sd3/forecast.json").read_text())["losses"]["launch"]
    assert f"`on.launch={launch:.0f}`" in said


def test_on_sd3_whole_steps_are_saved_and_cheaper_ones_are_not():
    """Speedup over FLOPs ratio, as docs/papers.md has it of the H100."""
    table = pd.read_parquet(ROOT / "results" / "h100" / "sd3" / "table.parquet").set_index("label")
    share = table.speedup / table.flops_ratio
    assert table.flops_ratio.filter(like="ras ").agg(["min", "max"]).round(2).tolist() == [1.57, 2.75]
    assert share.filter(regex="steps$|^taylor_output").min() > 0.95
    cheaper = share.filter(regex="^ralu|^taylorseer")
    assert 0.55 < cheaper.min() < cheaper.max() < 0.75
    assert table.speedup[cheaper.index].agg(["min", "max"]).round(1).tolist() == [1.6, 3.1]
    assert table.flops_ratio["dbcache"] == 1


def test_the_readme_says_of_the_h100_what_the_tables_say():
    speedup, flops = [], []
    for model in ("flux", "sd3"):
        table = pd.read_parquet(ROOT / "results" / "h100" / model / "table.parquet").set_index("label")
        assert table.random_weights.all()
        speedup.append(f"{table.speedup['ras ratio=0.5']:.2f}×")
        flops.append(f"{table.flops_ratio['ras ratio=0.5']:.2f}×")
    assert "RAS makes FLUX.1 {} and SD3 {} as fast".format(*speedup) in README
    assert "where its FLOPs would allow {} and {}".format(*flops) in README


def test_what_the_embedded_models_draw_is_what_their_cards_say():
    rows = ("one drawing, 128 px", "one drawing, 64 px", "two drawings, 128 px")
    cards = [(ROOT / f"assets/{m}_tiny/README.md").read_text("utf-8") for m in ("lumina", "sd3", "flux")]
    found = [[re.findall(rf"\| {row} \| (\d+%) \| (\d*%?)", card)[0] for card in cards] for row in rows]
    (one, _), (two, _), (three, _) = found[0]
    assert f"names {one} of [lumina_tiny]" in RESULTS
    assert f"{two} of [sd3_tiny]" in RESULTS
    assert f"{three} of [flux_tiny]" in RESULTS
    one, two, three = (share for share, _ in found[1])
    assert f"at 64 px {one}, {two} and {three};" in RESULTS
    one, two, three = (share for share, _ in found[2])
    assert f"both in {one}, {two} and {three}." in RESULTS
    assert {drawn for _, drawn in found[0]} == {"97%"}
    assert {drawn for _, drawn in found[2]} == {"76%"}


def test_how_steady_the_ranking_is_and_how_far_ras_departs_is_what_the_traces_say():
    traces = pd.read_parquet(ROOT / "results/embedded/ras-lumina_tiny-ratio/traces.parquet")
    mean = traces.groupby(["label", "step"])[["rank_correlation", "error_mean"]].mean()
    ranks = mean.loc["dense"].rank_correlation.dropna()
    steady = ranks.loc[4 : ranks.index[-2]]  # the fifth step is the first that is sparse elsewhere
    told = f"dense steps {steady.min():.2f} to {steady.max():.2f}, {ranks.iloc[-1]:.2f} at the last"
    assert told in RESULTS
    error = mean.loc["ras ratio=0.25"].error_mean
    first, second = (f"from {error[i - 1]:.2f} to {error[i]:.2f}" for i in (9, 14))
    assert f"take it back {first} of the latent, and {second}; it ends at {error.iloc[-1]:.2f}" in RESULTS
    assert f"ten steps at {mean.loc['10 steps'].error_mean.iloc[-1]:.2f}" in RESULTS

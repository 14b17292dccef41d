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


def verdicts(contrasts: list[Contrast]) -> dict[str, str]:
    return dict(zip(MODELS, (c.verdict for c in contrasts), strict=True))


def test_what_there_is_to_win_falls_with_the_shift():
    taylorseer = [pair("sd3", f"taylorseer {TWICE}", PSNR, "10 steps")]
    for shift in ("3.0", "1.5"):
        contrasts = controlled(of_study(Stored(ROOT / "results" / "embedded" / f"shift-sd3-{shift}")))
        taylorseer += [c for c in contrasts if (c.cell, c.control) == ("taylorseer", "10 steps")]
    assert [c.verdict for c in taylorseer] == ["not told apart", "better", "better"]
    five, three, less = (f"{c.by.value:.1f}" for c in taylorseer)
    assert f"is {less}, {three} and {five} dB nearer to the dense image than ten steps" in RESULTS
    chosen = {
        model: [
            pair(model, f"forecast basis={basis}", PSNR, "10 steps")
            for basis in ("taylor ", "taylor_scaled", "meancache")
        ]
        for model in MODELS
    }
    assert {c.verdict for c in chosen["lumina"]} == {"better"}
    assert sorted(c.verdict for c in chosen["flux"]) == ["better", "better", "not told apart"]
    assert {c.verdict for c in chosen["sd3"]} == {"not told apart"}
    lumina, flux = spread(chosen["lumina"]), spread(chosen["flux"])
    assert f"are {lumina} dB nearer than ten steps on `lumina_tiny`, {flux} dB on `flux_tiny`" in RESULTS


def test_the_fitted_solver():
    four = found("multistep fourfold", PSNR, "5 steps")
    assert {c.verdict for c in four} == {"better"}
    lumina, flux, sd3 = (f"{c.by.value:.1f}" for c in four)
    said = f"by {lumina} dB on `lumina_tiny`, {flux} dB on `flux_tiny` and {sd3} dB on `sd3_tiny`"
    assert said in RESULTS
    half = nearest(False)
    assert {name.split()[0] for name in nearest(True).values()} == {"multistep"}
    assert half["lumina"] == "multistep"
    assert {half[model].split()[0] for model in ("flux", "sd3")} == {"easycache"}
    at_half = pair("lumina", "multistep", PSNR, "10 steps")
    assert f"{at_half.by.value:.0f} dB nearer than ten steps. On `flux_tiny`" in RESULTS


def test_who_is_not_told_apart_from_the_fitted_solver():
    def tied(model: str, solver: str, four: bool) -> set[str]:
        subjects = of_study(study(model))
        near = {row["label"] for row in study(model).records if (row["flops_ratio"] > 3) == four}
        versus = [c for c in against(subjects, subjects, solver) if c.score == PSNR and c.cell in near]
        return {c.cell for c in versus if c.verdict != "worse"}

    assert "is nearer to the dense image than every other cell on every model, each told apart" in RESULTS
    assert not any(tied(model, "multistep fourfold", True) for model in MODELS)
    subjects = {model: of_study(study(model)) for model in ("flux", "sd3")}
    at_half = [
        c
        for model in ("flux", "sd3")
        for c in against(subjects[model], subjects[model], "multistep")
        if c.score == PSNR and c.cell.startswith("easycache")
    ]
    assert [c.verdict for c in at_half if "2." not in c.cell] == ["better", "not told apart"]
    assert "points of `clip_score[emoji]` and is not told apart from `multistep`" in RESULTS


def test_the_prompt_score_of_the_fitted_solver():
    lumina, flux, sd3 = found("multistep fourfold", CLIP, "5 steps")
    assert verdicts([lumina, flux, sd3]) == {"lumina": "better", "flux": "not told apart", "sd3": "better"}
    assert f"it is {lumina.by.value:.1f} and {sd3.by.value:.1f} points above five steps" in RESULTS


def nearest(four: bool) -> dict[str, str]:
    """The label nearest to the dense images at half or at a quarter of the FLOPs, by model."""
    found = {}
    for model in MODELS:
        rows = [r for r in study(model).records if r["role"] == "method" and r["psnr_gain"] is not None]
        found[model] = max((r for r in rows if (r["flops_ratio"] > 3) == four), key=lambda r: r["psnr"])[
            "label"
        ]
    return found


def test_the_lead_holds_on_prompts_that_the_solver_was_not_fitted_on():
    leads = []
    for model in MODELS:
        samples = pd.read_parquet(ROOT / f"results/embedded/matrix-{model}/samples.parquet")
        later = samples[samples.label == "dense"].prompt_id.to_numpy()[8:]
        table = samples.pivot(index="prompt_id", columns="label", values="psnr").loc[later]
        both = table["multistep fourfold"].to_numpy(), table["5 steps"].to_numpy()
        lead = paired_difference(*both, pool="decibel", worse=None)
        assert lead.low > 0
        leads.append(f"{lead.value:.1f}")
    assert "that it was fitted on, by {}, {} and {} dB".format(*leads) in RESULTS


def test_easycache_alone_is_better_than_ten_steps_on_every_model():
    easy = found("easycache", PSNR, "10 steps")
    _, flux, sd3 = (f"{c.by.value:.1f}" for c in easy)
    assert f"EasyCache is, {flux} and {sd3} dB nearer than ten steps" in RESULTS
    lumina, flux, sd3 = found("multistep", PSNR, "10 steps")
    assert verdicts([lumina, flux, sd3]) == {"lumina": "better", "flux": "better", "sd3": "not told apart"}
    said = f"is {flux.by.value:.1f} dB nearer on `flux_tiny` and {sd3.by.value:.1f} dB, not told apart"
    assert said in RESULTS
    fourfold = found("multistep fourfold", PSNR, "5 steps")
    assert f"and {spread(fourfold)} dB closer than five steps" in README
    assert f"EasyCache is {spread(easy)} dB closer than ten steps" in README
    price = pair("sd3", "easycache", CLIP, "10 steps")
    assert price.verdict == "worse"
    assert f"it pays with {-price.by.value:.1f} points" in RESULTS
    better = [
        {
            c.cell.split(" threshold")[0]
            for c in pairs(m)
            if (c.score, c.verdict, c.control) == (PSNR, "better", "10 steps")
        }
        for m in MODELS
    ]
    assert set.intersection(*better) == {"easycache"}


def test_forecasts_at_even_steps():
    caches = ("taylorseer", "taylor_output")
    twice = {m: [pair(m, f"{cache} {TWICE}", PSNR, "10 steps") for cache in caches] for m in MODELS}
    assert {c.verdict for m in ("lumina", "flux") for c in twice[m]} == {"better"}
    assert {c.verdict for c in twice["sd3"]} == {"not told apart"}
    assert (
        f"are {spread(twice['lumina'] + twice['flux'])} dB nearer than ten steps on `lumina_tiny` and"
        in RESULTS
    )
    lost = [pair("sd3", f"{cache} {TWICE}", CLIP, "10 steps") for cache in caches]
    assert {c.verdict for c in lost} == {"worse"}
    assert f"lose {spread(lost)} points" in RESULTS
    four = {m: [pair(m, f"{cache} {FOUR}", PSNR, "5 steps") for cache in caches] for m in MODELS}
    assert {c.verdict for m in ("lumina", "flux") for c in four[m]} == {"not told apart"}
    assert {c.verdict for c in four["sd3"]} == {"worse"}


def test_other_caches():
    sea = found("seacache", PSNR, "10 steps")
    assert verdicts(sea) == {"lumina": "better", "flux": "not told apart", "sd3": "not told apart"}
    assert f"SeaCache is {sea[0].by.value:.0f} dB nearer than ten steps on `lumina_tiny`" in RESULTS
    tea = found("teacache", PSNR, "10 steps")
    assert verdicts(tea) == {"lumina": "not told apart", "flux": "better", "sd3": "better"}
    assert (
        f"TeaCache is {tea[1].by.value:.1f} dB nearer on `flux_tiny` and {tea[2].by.value:.1f} dB" in RESULTS
    )
    price = pair("lumina", "teacache", CLIP, "10 steps")
    assert price.verdict == "worse"
    assert f"on `lumina_tiny` it loses {-price.by.value:.1f} points" in RESULTS
    near = {m: [pair(m, cache, PSNR, "10 steps") for cache in ("fbcache", "dbcache")] for m in MODELS}
    assert {c.verdict for m in ("lumina", "flux") for c in near[m]} == {"better"}
    assert {c.verdict for c in near["sd3"]} == {"not told apart"}
    assert f"are {spread(near['lumina'] + near['flux'], 1)} dB nearer on `lumina_tiny` and" in RESULTS
    lost = found("fbcache", CLIP, "5 steps")
    assert {c.verdict for c in lost} == {"worse"}
    assert f"first-block cache loses {spread(lost)} points" in RESULTS
    steps = ("10 steps", "5 steps")
    assert {c.verdict for s in steps for c in found("delta_dit", PSNR, s)} == {"worse"}
    assert {c.verdict for s in steps for c in found("magcache", PSNR, s)} == {"not told apart"}
    assert max(abs(c.by.value) for s in steps for c in found("fora", PSNR, s)) < 1.1


def of_ras(why: str, score: str, four: bool, setting: str = "") -> list[Contrast]:
    return [
        c
        for model in MODELS
        for c in pairs(model)
        if c.question == why and c.score == score and ("steps=8" in c.cell) == four and setting in c.cell
    ]


def rows_of(label: str, four: bool) -> list[dict]:
    """The first row of the whole label, at half or at a quarter of the FLOPs, by model."""
    return [
        next(
            r for r in study(m).records if re.fullmatch(label, r["label"]) and (r["flops_ratio"] > 3) == four
        )
        for m in MODELS
    ]


def test_ras_against_fewer_steps():
    lumina, flux, sd3 = rows_of(r"ras ratio=\S+ high_ratio=0", False)
    assert min(lumina["psnr_gain_low"], flux["psnr_gain_low"], sd3["psnr_gain_high"]) > 0
    assert max(row["psnr_gain_holm"] for row in (lumina, flux)) < 0.05
    assert sd3["psnr_gain_low"] < 0
    gains = [row["psnr_gain"] for row in (lumina, flux, sd3)]
    assert "**RAS** is {:.1f} and {:.1f} dB nearer than step reduction".format(*gains) in RESULTS
    assert f"RAS is {gains[0]:.1f}, {gains[1]:.1f} and −{-gains[2]:.1f} dB closer to the dense" in README
    best = rows_of(r"ras_kept_text ratio=\S+ selection=edges ageing=1", False)
    assert [row["psnr_gain_holm"] < 0.05 for row in best] == [True, True, False]
    said = "are {:.1f}, {:.1f} and {:.1f} dB nearer than step reduction on `lumina_tiny`, `flux_tiny` and"
    assert said.format(*(row["psnr_gain"] for row in best)) in RESULTS
    quarter = [
        row
        for model in MODELS
        for row in study(model).records
        if row["label"].startswith("ras") and row["flops_ratio"] > 3 and row["role"] == "method"
    ]
    assert len(quarter) == 24
    assert not [row for row in quarter if row["psnr_gain"] > 0 and row["psnr_gain_holm"] < 0.05]
    (text,) = (row for row in quarter if row[f"{CLIP}_gain"] > 0 and row[f"{CLIP}_gain_holm"] < 0.05)
    assert text["label"] == "ras_kept_text ratio=0.302 steps=8 start=2"  # of sd3
    value, *ends = (f"{text[f'{CLIP}_gain{end}']:.1f}" for end in ("", "_low", "_high"))
    said = f"kept text is above step reduction there on `sd3_tiny`, by {value} points [{', '.join(ends)}]"
    assert said in RESULTS


def test_what_the_best_tokens_would_win():
    def oracle(model: str, control: str) -> dict[bool, str]:
        """Verdicts on PSNR at half (False) and at a quarter (True) of the FLOPs."""
        subjects = of_study(study(model))
        versus = [c for c in against(subjects, subjects, control) if c.score == PSNR]
        return {"steps=8" in c.cell: c.verdict for c in versus if "selection=oracle" in c.cell}

    assert "the oracle's tokens are not told apart from five steps" in RESULTS
    assert {oracle(model, "5 steps")[True] for model in MODELS} == {"not told apart"}
    assert "do not come as near as `multistep` on `lumina_tiny`" in RESULTS
    assert oracle("lumina", "multistep")[False] == "worse"


def test_which_tokens_ras_runs():
    ends = of_ras("one end of the ranking or the other", PSNR, False)
    assert {c.verdict for c in ends} == {"worse"}
    assert f"the lowest, is {spread(ends, 1)} dB farther off on every model" in RESULTS
    random = of_ras("chosen or random tokens", PSNR, False, "high_ratio=1")
    assert {c.verdict for c in random} == {"worse"}
    assert f"worse than random tokens, by {spread(random, 1)} dB" in RESULTS
    for rule, said in (
        ("change", "are {} dB nearer than random ones"),
        ("edges", "(`selection=edges`) {} dB"),
    ):
        found = of_ras("chosen or random tokens", PSNR, False, f"selection={rule}")
        assert [c.verdict for c in found] == ["better"] * 3
        assert said.format(spread(found, 1)) in RESULTS
    forecast = of_ras("forecast or reused tokens", PSNR, True)
    assert {c.verdict for c in forecast} == {"worse"}
    assert f"(`stale=taylor`) costs {spread(forecast)} dB at a quarter" in RESULTS


@pytest.mark.parametrize("model", MODELS)
def test_edges_are_not_told_apart_from_random_regions(model):
    assert "edges are not told apart from random regions anywhere" in RESULTS
    edges = [c for c in pairs(model) if c.question == "chosen or random regions"]
    assert len({c.cell for c in edges}) == 2
    assert {c.verdict for c in edges} == {"not told apart"}


def test_images_of_half_size_as_images_of_their_prompts():
    gain, low, holm = (f"{CLIP}_gain{end}" for end in ("", "_low", "_holm"))
    assert max(row[low] for row in rows_of("ralu steps.*", True)) < 0
    lumina, flux, sd3 = rows_of("mrflow.*", True)
    assert min(lumina[low], sd3[low]) > 0 > flux[low]
    assert sd3[holm] < 0.05 < lumina[holm]
    assert f"MrFlow, a small image upscaled, is {sd3[gain]:.0f} and {lumina[gain]:.0f} points" in RESULTS
    lumina, flux, sd3 = rows_of("selflift.*lift=latent", True)
    assert max(lumina[holm], sd3[holm]) < 0.05 < flux[holm]
    assert f"by SelfLift, {sd3[gain]:.0f} and {lumina[gain]:.0f} points" in RESULTS
    samples = pd.read_parquet(ROOT / "results/embedded/matrix-flux/samples.parquet")
    scores = samples.pivot(index="key", columns="label", values=CLIP)
    five = paired_difference(scores["5 steps"].to_numpy(), scores["dense"].to_numpy())
    assert five.high < 0
    assert f"where five steps lose {-five.value:.1f} points to twenty" in RESULTS


def test_at_half_no_prompt_score_is_better_than_ten_steps():
    assert "At half the FLOPs no cache and no solver has a better prompt score than ten steps" in RESULTS
    found = [c for m in MODELS for c in pairs(m) if c.score == CLIP and c.control == "10 steps"]
    assert len(found) > 40
    assert "better" not in {c.verdict for c in found}


def test_compositions_beside_their_parts():
    """Of RAS, RALU and caches at half (False) and at a quarter (True) of the FLOPs."""
    alone: dict[bool, list[Contrast]] = {False: [], True: []}
    verdicts: dict[tuple[str, str, str], set[str]] = {}
    for model in MODELS:
        for c in pairs(model):
            if c.question.startswith("composition"):
                verdicts.setdefault((model, c.cell, c.score), set()).add(c.verdict)
            ras = c.cell.startswith("ras_caching") and c.score == PSNR
            if ras and c.question == "composition or the method alone":
                alone["start=2" in c.cell].append(c)
    assert {c.verdict for c in alone[True]} == {"worse"}
    assert f"costs {spread(alone[True])} dB at a quarter against RAS alone" in RESULTS
    lumina, flux, sd3 = alone[False]
    assert [c.verdict for c in alone[False]] == ["worse", "worse", "better"]
    assert f"at half {-lumina.by.value:.1f} and {-flux.by.value:.1f} dB on `lumina_tiny` and" in RESULTS
    versus = {c.question: c.by.value for c in pairs("sd3") if (c.cell, c.score) == (sd3.cell, CLIP)}
    assert (
        f"it is {sd3.by.value:.1f} dB and {versus['composition or the method alone']:.1f} points of prompt "
        f"score better than RAS alone and {versus['composition or the cache alone']:.1f} points better than"
    ) in RESULTS
    assert {key for key, found in verdicts.items() if found == {"better"}} == {
        ("sd3", sd3.cell, score) for score in (CLIP, "ssim")
    }


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


def test_kept_text_at_equal_tokens():
    apart, likeness = [], []
    for less, four in ((r"ras ratio=\S+", False), (r"ras ratio=\S+ steps=8 start=2", True)):
        ratios = {"flux": (0.197, 0.155), "sd3": (0.127, 0.083)}
        cells = "|".join(str(pair[four]) for pair in ratios.values())
        found = kept_text_pairs(rf"ras_kept_text ratio=({cells})( steps=8 start=2)?", four, less)
        assert {c.score for c in found} >= {PSNR, "ssim", CLIP}
        likeness += [abs(c.by.value) for c in found if c.score == PSNR]
        apart += [c for c in found if c.verdict != "not told apart"]
    assert f"the kept text is within {max(likeness):.2f} dB of the running one" in RESULTS
    (ssim,) = apart
    assert (ssim.score, ssim.verdict, ssim.cell) == ("ssim", "worse", "ras_kept_text ratio=0.197")
    assert f"only SSIM at half on `flux_tiny` is told apart, {-ssim.by.value:.3f} lower" in RESULTS


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
    assert (flux.verdict, sd3.verdict) == ("better", "better")
    assert f"{flux.by.value:.1f} and {sd3.by.value:.1f} points of prompt score on `flux_tiny` and" in RESULTS
    (flux, sd3) = (c for c in found if c.score == CLIP)
    assert (flux.verdict, sd3.verdict) == ("not told apart", "better")
    assert f"with RAS's own tokens {sd3.by.value:.1f} points on `sd3_tiny`, not told apart on" in RESULTS


def test_the_table_of_kept_text():
    rows = {model: kept_text(model).records for model in ("sd3", "flux")}
    lines = (ROOT / "docs/results.md").read_text("utf-8").split("kept text -->\n")[1].splitlines()[2:-1]
    for i, line in zip(range(1, 6), lines, strict=True):
        for model, cell in zip(("sd3", "flux"), line.split("|")[2:4], strict=True):
            row = rows[model][i]
            assert cell.strip().startswith(f"{row['psnr']:.2f}")
            if "," in cell:
                assert f"FLOPs {row['flops_ratio']:.2f}x fewer" in cell


@cache
def guidance(model: str) -> dict[str, dict]:
    """Rows of the method by the settings in their label."""
    study = Stored(ROOT / "results" / "embedded" / f"guidance-{model}")
    rows = {record["label"]: record for record in study.records}
    return {label.removeprefix("guidance "): row for label, row in rows.items() if "guidance" in label}


def apart(row: dict, score: str) -> bool:
    """Whether a gain over step reduction is told apart."""
    leaves_out_zero = row[f"{score}_gain_low"] * row[f"{score}_gain_high"] > 0
    return row[f"{score}_gain_holm"] < 0.05 and leaves_out_zero


def gain(row: dict, score: str) -> str:
    value = f"{row[f'{score}_gain']:+.1f}".replace("-", "−")
    return f"**{value}**" if apart(row, score) else value


def test_the_table_of_guidance():
    text = (ROOT / "docs/results.md").read_text("utf-8")
    lines = re.findall(r"\| `(.+)` \| (.+) \| (.+) \|", text.split("guidance -->\n")[1])[1:]
    assert [line[0] for line in lines] == [*guidance("lumina")] == [*guidance("sd3")]
    for label, *cells in lines:
        rows = [guidance(model)[label] for model in ("lumina", "sd3")]
        assert cells == [f"{r['flops_ratio']:.2f}×, {gain(r, PSNR)}, {gain(r, CLIP)}" for r in rows]


def test_guidance_on_a_part_of_the_steps():
    lumina, sd3 = guidance("lumina"), guidance("sd3")
    gains = [-row["psnr_gain"] for row in sd3.values()]
    assert f"by {min(gains):.1f} to {max(gains):.1f} dB, all but `stop=0.25` told apart" in RESULTS
    assert min(gains) > 0
    assert [label for label, row in sd3.items() if not apart(row, PSNR)] == ["stop=0.25"]
    early = [lumina[f"stop={share}"] for share in ("0.25", "0.5", "0.75")]
    least, *_, most = (row["psnr_gain"] for row in early)
    assert f"by {least:.1f} to {most:.1f} dB, not told apart" in RESULTS
    assert not any(apart(row, PSNR) for row in early)
    late = [-rows["start=0.25 stop=0.75"]["psnr_gain"] for rows in (lumina, sd3)]
    assert f"leaving it out there costs {late[0]:.1f} and {late[1]:.1f} dB" in RESULTS
    both = [*lumina.items(), *sd3.items()]
    assert all(row["psnr_gain"] < 0 for label, row in both if "reuse" in label)
    every, reuse = "stop=1 every=2", "stop=1 every=2 rest=reuse"
    assert lumina[reuse]["psnr"] < lumina[every]["psnr"]
    assert sd3[reuse]["psnr"] > sd3[every]["psnr"]
    told = {(label, row[f"{CLIP}_gain"]) for label, row in both if apart(row, CLIP)}
    assert len(told) == 3
    assert all("reuse" in label and -26 < points < -11 for label, points in told)
    assert all(rows["stop=0"][f"{CLIP}_to_dense_holm"] > 0.05 for rows in (lumina, sd3))


@cache
def freqca_dicache(model: str) -> Stored:
    return Stored(ROOT / "results" / "embedded" / f"freqca-dicache-{model}")


def short(label: str) -> str:
    """Return the label without what all cells of its kind have in common."""
    return re.sub(r"forecast at=hidden | warmup=\d| retention=\S+| threshold=\S+", "", label)


def beside(a: str, b: str, score: str) -> dict[str, Contrast]:
    """Contrasts of two cells, a less b, by model."""
    found = {}
    for model in MODELS:
        cells = {short(subject.label): subject for subject in of_study(freqca_dicache(model))}
        contrasts = against([*cells.values()], [*cells.values()], cells[b].label)
        (found[model],) = (c for c in contrasts if c.cell == cells[a].label and c.score == score)
    return found


def least_and_most(contrasts: dict[str, Contrast], places: int, sign: int = 1) -> str:
    values = sorted(sign * c.by.value for c in contrasts.values())
    return f"{values[0]:.{places}f} to {values[-1]:.{places}f}".replace("-", "−")


def test_the_table_of_freqca_and_dicache():
    text = (ROOT / "docs/results.md").read_text("utf-8").split("freqca dicache -->\n")[1]
    lines = re.findall(r"\| `(.+)` \| (.+) \| (.+) \| (.+) \|", text)
    rows = {
        model: {short(row["label"]): row for row in freqca_dicache(model).records if row["role"] == "method"}
        for model in MODELS
    }
    assert [line[0] for line in lines] == [*rows["lumina"]] == [*rows["sd3"]] == [*rows["flux"]]
    for label, *cells in lines:
        own = [rows[model][label] for model in ("lumina", "sd3", "flux")]
        assert cells == [f"{r['flops_ratio']:.2f}×, {gain(r, PSNR)}, {gain(r, CLIP)}" for r in own]


def test_freqca_beside_its_parts():
    half, quarter = "basis=freqca interval=2", "basis=freqca interval=4"
    hermite = beside(half, "basis=hermite damping=0.71 interval=2", PSNR)
    reuse = beside(half, "basis=reuse interval=2", PSNR)
    assert f"is {least_and_most(hermite, 1, -1)} dB nearer to the dense image than FreqCa" in RESULTS
    assert {c.verdict for c in [*hermite.values(), *reuse.values()]} == {"not told apart"}
    assert max(abs(c.by.value) for c in reuse.values()) < 0.2
    rows = [{short(row["label"]): row for row in freqca_dicache(model).records} for model in MODELS]
    at = ["basis=reuse interval=4", "basis=hermite damping=0.71 interval=4", quarter]
    assert all(max(at, key=lambda label: row[label]["psnr"]) == at[0] for row in rows)
    for cell in (quarter, "basis=freqca cutoff=0.3 interval=4"):
        less = beside(cell, "basis=reuse interval=4", "ssim")
        assert {c.verdict for c in less.values()} == {"worse"}
        assert least_and_most(less, 2, -1) in RESULTS


def test_dicache_beside_the_caches_that_it_extends():
    first, aligned = beside("dicache", "fbcache", PSNR), beside("dicache", "dicache align=False", PSNR)
    assert f"any model ({least_and_most(first, 1)} dB)" in RESULTS
    assert "adding the last residual (−0.1 to +0.6 dB)" in RESULTS
    assert least_and_most(aligned, 1) == "−0.1 to 0.6"
    for score in (PSNR, "ssim", CLIP):
        found = [*beside("dicache", "fbcache", score).values()]
        found += beside("dicache", "dicache align=False", score).values()
        assert {c.verdict for c in found} == {"not told apart"}
    steps = beside("dicache", "10 steps", PSNR)
    assert {round(steps[model].by.value) for model in ("lumina", "flux")} == {4, 5}
    assert (steps["lumina"].verdict, steps["flux"].verdict) == ("better", "better")
    assert beside("dicache", "10 steps", "ssim")["sd3"].verdict == "worse"


def test_the_h100_beside_its_forecasts():
    said = (ROOT / "docs" / "papers.md").read_text("utf-8")
    told = said.split("<!-- h100 -->")[1].split("<!-- end h100 -->")[0].strip().splitlines()[2:]
    files = (ROOT / "results" / "h100" / model / "forecast.json" for model in ("sd3", "lumina", "flux"))
    sd3, lumina, flux = (
        {re.sub(r"^\d+ steps$", "half the steps", row["label"]): row for row in json.loads(text)["rows"]}
        for text in (file.read_text() for file in files)
    )

    def seconds(row: dict, *keys: str) -> list[str]:
        return ["" if row[key] is None else f"{row[key]:.2f}" for key in keys]

    assert [[part.strip() for part in line.split("|")[1:-1]] for line in told] == [
        [
            label,
            *seconds(row, "measured", "forecast"),
            *seconds(lumina[label], "measured", "forecast"),
            *seconds(flux[label], "measured", "first call", "forecast"),
        ]
        for label, row in sd3.items()
    ]
    full = [flux[label] for label in ("dense", "half the steps")]
    assert all(abs(row["first call"] / row["forecast"] - 1) < 0.05 for row in full)
    half = flux["ras ratio=0.5"]
    assert flux["dense"]["measured"] / half["measured"] == pytest.approx(1.47, abs=0.005)
    gains = [
        sd3["dense"]["measured"] / row["measured"] for label, row in sd3.items() if label.startswith("ras")
    ]
    assert 0.95 < min(gains) < max(gains) < 1.25
    launch = json.loads((ROOT / "results/h100/sd3/forecast.json").read_text())["losses"]["launch"]
    assert f"`on.launch={launch:.0f}`" in said


def test_lumina_on_the_h100():
    said = " ".join((ROOT / "docs" / "papers.md").read_text("utf-8").split())
    table = pd.read_parquet(ROOT / "results/h100/lumina/table.parquet").set_index("label")
    half, quarter, eighth = (f"{table.speedup[f'ras ratio={r}']:.2f}" for r in (0.5, 0.25, 0.125))
    flops = [f"{table.flops_ratio[f'ras ratio={r}']:.2f}" for r in (0.5, 0.25)]
    assert f"of the tokens is {half} times as fast ({flops[0]} by its FLOPs" in said
    assert f"at a quarter {quarter} times ({flops[1]})" in said
    samples = pd.read_parquet(ROOT / "results/h100/lumina/samples.parquet")
    batches = sorted(samples[samples.label == "ras ratio=0.125"].seconds)
    assert f"{eighth} times, of one batch of {batches[0]:.1f} and one of {batches[-1]:.1f} s" in said
    assert f"{table['seconds']['dense'] / 30 * 1000:.0f} ms" in said
    assert f"Half the steps are {table.speedup['15 steps']:.2f} times as fast" in said
    ralu = table.filter(like="ralu preset", axis=0)
    assert "RALU {:.1f} and {:.1f} times".format(*ralu.speedup) in said
    share = ralu.speedup / ralu.flops_ratio * 100
    assert f"at {share.min():.0f} to {share.max():.0f} % of what its FLOPs allow" in said


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
    for model in ("flux", "lumina", "sd3"):
        table = pd.read_parquet(ROOT / "results" / "h100" / model / "table.parquet").set_index("label")
        assert table.random_weights.all()
        speedup.append(f"{table.speedup['ras ratio=0.5']:.2f}×")
        flops.append(f"{table.flops_ratio['ras ratio=0.5']:.2f}×")
    assert "RAS makes FLUX.1 {}, Lumina-Next {} and SD3 {} as fast".format(*speedup) in README
    assert "where its FLOPs would allow {}, {} and {}".format(*flops) in README


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


def test_the_default_study_with_100_prompts():
    table = pd.read_parquet(ROOT / "results/embedded/ras-lumina_tiny-ratio-100/table.parquet")
    table = table.set_index("label")
    assert (table.n == 100).all()
    row = table.loc["ras ratio=0.25"]
    gain = "{:.1f} dB [{:.1f}, {:.1f}]".format(*(row[f"psnr_gain{end}"] for end in ("", "_low", "_high")))
    assert f"at {row.speedup:.2f} times the speed RAS is {gain} nearer than step" in RESULTS
    assert f"and {row.ssim_gain:.2f} in SSIM, both after" in RESULTS
    assert max(row.psnr_gain_holm, row.ssim_gain_holm) < 0.05
    low, high = row[f"{CLIP}_gain_low"], row[f"{CLIP}_gain_high"]
    assert f"lies between −{-low:.1f} and +{high:.1f} points" in RESULTS
    differ = table.index[table[f"{CLIP}_to_dense_holm"] < 0.05]
    assert [*differ] == ["5 steps"]
    assert f"by −{table[CLIP]['dense'] - table[CLIP]['5 steps']:.1f} points" in RESULTS


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

"""Write all outputs of a study: tables, plots, maps, contact sheet, page and provenance."""

from pathlib import Path
from typing import Any

from fovea.study.analysis.contrasts import of_rows
from fovea.study.analysis.score import per_sample, rows
from fovea.study.analysis.verdict import volumes
from fovea.study.files import hash_of, remove, write, write_json
from fovea.study.plan.fingerprint import digest
from fovea.study.plan.plan import Plan
from fovea.study.report import formats, published
from fovea.study.report.comparisons import contrast_table, in_short
from fovea.study.report.maps import focus, regions, sheet, token_shares
from fovea.study.report.page import page
from fovea.study.report.pareto import pareto
from fovea.study.report.study_table import study_table
from fovea.study.report.table import Table
from fovea.study.report.traces import table as trace_table
from fovea.study.report.traces import traced
from fovea.study.report.trajectories import departure, score_maps
from fovea.study.store import Store
from fovea.study.stored import Stored

# what the provenance hash in the summary covers
STUDY = ("commit", "dirty", "packages", "config", "cells", "seeds", "prompts", "random_weights")


def report(plan: Plan, store: Store, origin: dict[str, Any]) -> tuple[list[Table], dict[str, Any]]:
    """Write every output, including the provenance, to the study's folder.

    Return the tables (the study, its pairs, a paper's results) and the summary that run.py prints last.
    """
    found, folder = rows(plan, store), store.folder
    table, samples = study_table(found, plan.random_weights), per_sample(plan, store, found)
    pairs, front = contrast_table(of_rows(found, plan.settings.versus), plan.random_weights), volumes(found)
    scores = {name: score.facts.plain() for row in found for name, score in row.scores.items()}
    keys, noise = (samples[name].to_pylist() for name in ("key", "noise"))
    formats.save(table, folder / "table")  # first: until the provenance has its hash, it is not read
    write(folder / "samples.parquet", formats.packed(samples))
    write(folder / "hypervolume.csv", formats.csv(front))
    formats.save(pairs, folder / "contrasts")
    paper_table = published.save(plan, found, folder)
    origin = origin | {"noise": dict(zip(keys, noise, strict=True)), "scores": scores}
    origin |= {"table": hash_of(folder / "table.parquet")}
    write_json(folder / "provenance.json", origin)  # with these files, all that later commands read
    pareto(found, folder, plan.random_weights)
    draw_maps(plan, store, folder)
    sheet(plan, store, folder)
    page(plan, store, found, table, origin, paper_table, pairs)
    tables = [table, pairs and in_short(pairs), paper_table]
    hashed = digest({key: origin[key] for key in STUDY})
    return list(filter(None, tables)), Stored(folder).summary() | {"provenance": hashed}


def draw_maps(plan: Plan, store: Store, folder: Path) -> None:
    """Write focus, scores, departure and regions (.png and .svg) and traces.parquet.

    Files of an earlier report that this one does not write are removed.
    """
    found, traces = token_shares(plan, store), traced(plan, store)
    written = {
        "focus.png": focus(plan, store, found, folder),
        "scores.png": score_maps(plan, store, traces, folder),
        "departure.png": departure(plan, store, traces, folder),
        "regions.png": regions(plan, store, traces, folder),
        "traces.parquet": bool(traces),
    }
    if traces:
        write(folder / "traces.parquet", trace_table(traces, plan.random_weights))
    for name, is_written in written.items():
        if not is_written:
            remove(folder / name, Path(name).suffix, ".svg")

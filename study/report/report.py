"""From a store to what a reader gets: tables, plots, focus maps, contact sheet, provenance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovea.study.analysis.row import Row
from fovea.study.analysis.score import per_sample, rows
from fovea.study.plan.fingerprint import digest
from fovea.study.plan.plan import Plan
from fovea.study.report import drawn as maps
from fovea.study.report import published as printed
from fovea.study.report.formats import save
from fovea.study.report.page import page
from fovea.study.report.pareto import pareto
from fovea.study.report.records import records
from fovea.study.report.sheet import sheet
from fovea.study.store import Store, write_json
from fovea.study.stored import brief

STUDY = ("commit", "dirty", "packages", "config", "cells", "seeds", "prompts", "random_weights")


def report(plan: Plan, store: Store, origin: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Writes every output into the study's folder, its provenance among them. Gives the rows, and the summary
    that run.py prints last."""
    found = rows(plan, store)
    samples = per_sample(plan, store, found)
    save(store.folder, found, samples, plan.random_weights)
    pareto(found, store.folder, plan.random_weights)
    maps.show(plan, store, store.folder)
    sheet(plan, store, store.folder)
    scores = {name: score.facts.plain() for row in found for name, score in row.scores.items()}
    origin = origin | {"noise": {r["key"]: r["noise"] for r in samples}, "scores": scores}
    write_json(store.folder / "provenance.json", origin)
    paper = printed.table(plan, found)
    if paper:
        printed.forms(plan, paper, store.folder)
    page(plan, store, found, origin, *printed.text(plan, paper))
    return found, summary(plan, found, store.folder, origin)


def summary(plan: Plan, found: Sequence[Row], folder: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """One JSON object: where the study is, how it went, the table in brief."""
    told = zip(records(found, plan.random_weights), found, strict=True)
    return {
        "study": str(folder),
        "cells": len(found),
        "done": sum(row.n == row.planned for row in found),
        "failed": sum(row.failure is not None for row in found),
        "random_weights": plan.random_weights,
        "rows": [brief(record, row.scores) for record, row in told],
        "provenance": digest({key: origin[key] for key in STUDY}),
    }

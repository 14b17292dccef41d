"""What is compared of a cell: its scores of every image, of a table of now or of a stored study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from fovea.eval.facts import Facts
from fovea.eval.statistics import Pool, pooled
from fovea.study.analysis.row import Row
from fovea.study.stored import Stored

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Each:
    """A score of every image by key, and how they make the figure."""

    facts: Facts
    pool: Pool
    values: Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """What is compared of a cell. cheaper: how many times less than dense it costs, 0 if unknown. prompts: by
    key."""

    label: str
    role: str
    dense: str
    method: Node
    cheaper: float
    scores: Mapping[str, Each]
    prompts: Mapping[str, str]

    @cached_property
    def kind(self) -> str:
        """RAS, of fovea.methods.RAS."""
        return kind(self.method)


def kind(node: Node) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def of_row(row: Row) -> Subject:
    scores = {
        name: Each(score.facts, score.pool, dict(zip(row.keys, score.per_image, strict=True)))
        for name, score in row.scores.items()
        if score.value is not None and score.per_image is not None
    }
    prompts = dict(zip(row.keys, row.prompts, strict=True))
    cell = row.cell
    return Subject(cell.label, cell.role, cell.dense, cell.method, row.cheaper, scores, prompts)


def of_study(study: Stored) -> list[Subject]:
    """As its table and samples have them."""
    cost = "flops_ratio" if study.provenance["config"].get("cost") == "flops" else "speedup"
    images: dict[str, list[dict[str, Any]]] = {}
    for image in study.samples:
        images.setdefault(image["cell"], []).append(image)
    found = []
    for record in study.records:
        known, mine = study.provenance["cells"][record["cell"]], images.get(record["cell"], [])
        scores = {name: _each(study.facts[name], mine, name, record.get(name)) for name in study.scores}
        found.append(
            Subject(
                record["label"],
                record["role"],
                known["dense"],
                known["method"],
                record.get(cost) or 0.0,
                {name: each for name, each in scores.items() if each is not None},
                {image["key"]: image["prompt"] for image in mine},
            )
        )
    return found


def _each(facts: Facts, images: Sequence[Mapping[str, Any]], name: str, figure: float | None) -> Each | None:
    """None where the images' values do not make the figure of the table."""
    values = {image["key"]: image[name] for image in images if image.get(name) is not None}
    pool = how_pooled(list(values.values()), figure)
    return None if pool is None else Each(facts, pool, values)


def how_pooled(values: Sequence[float], figure: float | None) -> Pool | None:
    """How the images' values make the figure of the table; None if they do not."""
    if not values or figure is None:
        return None
    same = (p for p in get_args(Pool) if math.isclose(pooled(values, pool=p), figure, rel_tol=1e-6))
    return next(same, None)

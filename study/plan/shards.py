"""A study in shards: blocks of its batches with all cells of one model, so that every speedup is of times
taken by one process on one device, in turns."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from fovea.study.plan.cells import GENERATION, Cell
from fovea.study.plan.fingerprint import digest
from fovea.study.plan.plan import Plan

MOST = 128  # shards of a model, about: few enough that looking for a free one takes no time


@dataclass(frozen=True)
class Shard:
    """cells: by id, all of one model. samples: by key, whole batches."""

    cells: tuple[str, ...]
    samples: tuple[str, ...]
    name: str  # of its lease: the same in every process

    def only(self, cells: Collection[str]) -> "Shard":
        """With these cells of it alone."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))


def shards(plan: Plan) -> list[Shard]:
    """All of a study. An even number of batches to a shard: there and back, so that no method is favoured."""
    keys, size = [s.key for s in plan.samples], plan.settings.batch
    batches = math.ceil(len(keys) / size)
    block = size * 2 * math.ceil(batches / (2 * MOST))
    parts = [keys[first : first + block] for first in range(0, len(keys), block)]
    groups = [[cell.id for cell in cells] for cells in by_loading(plan.cells)]
    return [Shard(tuple(ids), tuple(part), digest([ids, part])) for ids in groups for part in parts]


def by_loading(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that one loaded pipeline serves: their models differ in size, steps or guidance at most."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(loading(cell), []).append(cell)
    return list(groups.values())


def loading(cell: Cell) -> str:
    """Digest of what a pipeline is loaded by."""
    return digest({key: value for key, value in cell.model.items() if key not in GENERATION})

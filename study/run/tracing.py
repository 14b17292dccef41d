"""The pass that is not timed: counts a cell's FLOPs, and traces it beside its dense baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fovea.eval.speed import count_flops
from fovea.models import Model
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.records import FlopsRecord
from fovea.study.run.generate import Method, flow, noise
from fovea.study.run.observe import Observer, Trajectory
from fovea.study.run.trace import read, save
from fovea.study.store import Store

IMAGES = 4  # of each cell are traced, at most


@dataclass
class Tracing:
    """Of the cells that one loaded model serves. dense: by id of a baseline, what the others are compared
    with, made when it is first needed; None where the baseline failed. methods: by id of a cell."""

    plan: Plan
    store: Store
    model: Model
    dense: dict[str, Trajectory | None] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)

    def method(self, cell: Cell) -> Method:
        if cell.id not in self.methods:
            self.methods[cell.id] = instantiate(cell.method, "method", "fovea.methods")
        return self.methods[cell.id]

    @property
    def batch(self) -> Sequence[Sample]:
        """The first of the study's samples, in one call."""
        return self.plan.samples[: min(self.plan.settings.batch, IMAGES)]

    def __call__(self, cell: Cell) -> None:
        """Notes the cell's FLOPs, counted and by the closed form, of so many images, and their traces."""
        lacking = {s.key for s in self.batch} - set(read(self.store, cell.id))
        if lacking or self.store.samples(cell.id).flops is None:
            self.trace(cell)

    def trace(self, cell: Cell) -> None:
        own = cell.id == cell.dense
        ready = flow(self.model, cell, self.batch)
        state = noise(self.model, cell, self.batch)
        seen = Observer(ready, state, None if own else self.reference(cell.dense), keep=own)
        flops = count_flops(lambda: self.method(cell)(ready, on_step=seen))[1]
        closed = sum(map(ready.flops, range(len(self.batch))))
        least, images = ready.least_compared(), len(self.batch)
        record = FlopsRecord(cell=cell.id, images=images, counted=flops, closed=closed, least=least)
        self.store.append(record)
        save(self.store, cell.id, seen.traces([s.key for s in self.batch]))
        if own:
            self.dense[cell.id] = seen.trajectory()

    def reference(self, dense: str) -> Trajectory | None:
        """Of a baseline by id: made anew where it was finished in an earlier run."""
        if dense not in self.dense:
            self.dense[dense] = None
            cell = next((cell for cell in self.plan.cells if cell.id == dense), None)
            if cell and (self.store.samples(dense) or not self.store.samples(dense).failures):
                self.trace(cell)
        return self.dense[dense]

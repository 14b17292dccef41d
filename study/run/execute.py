"""Make the samples of some cells in this process: load once, interleave the methods, store as it goes,
survive a failure."""

import gc
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import diffusers
import torch
import transformers

from fovea.eval.speed import compile_seconds, count_flops, turn
from fovea.models import Model, adapt, text_limits
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.files import Unwritable, storable
from fovea.study.plan.cells import GENERATION, Cell
from fovea.study.plan.fingerprint import digest, machine, threads
from fovea.study.plan.plan import Plan
from fovea.study.records import CellRecord, FailureRecord, FlopsRecord, WarmUpRecord
from fovea.study.run.events import Event, Failed, Made, Said, Started, WarmedUp
from fovea.study.run.generate import Method, Origin, flow, keep, make, noise, now
from fovea.study.run.observe import Observer, Trajectory
from fovea.study.run.trace import read, save
from fovea.study.store import Store

IMAGES = 4  # of each cell are traced, at most
MESSAGE, TRACEBACK = 2_000, 20_000  # characters of a failure, at most


def run_shard(plan: Plan, cells: Collection[str], samples: Collection[str], store: Store) -> Iterator[Event]:
    """Makes what is missing of these samples, by key, in these cells, by id, and tells of it. All that it
    takes is plain and pickles; the device, its name and what it can hold are found out here, where it runs.
    Raises Unwritable where the results cannot be written: whatever else goes wrong is a cell's failure."""
    torch.set_num_threads(threads())
    chosen = [cell for cell in plan.cells if cell.id in cells]
    for cell in chosen:
        store.describe(CellRecord.of(cell))
    for group in _by_loading(chosen):
        todo = pending(store, group, samples)
        if todo:
            yield from Shard(plan, store, [cell for cell in group if cell.id in todo], todo).run()


def pending(store: Store, cells: Iterable[Cell], samples: Collection[str]) -> dict[str, set[str]]:
    """Cell id to the keys it lacks; only cells that lack some."""
    lacking = {cell.id: set(samples) - store.samples(cell.id).keys() for cell in cells}
    return {cell: missing for cell, missing in lacking.items() if missing}


def _by_loading(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that one loaded pipeline serves: their models differ in size, steps or guidance at most."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        weights = {key: value for key, value in cell.model.items() if key not in GENERATION}
        groups.setdefault(digest(weights), []).append(cell)
    return list(groups.values())


@dataclass
class Shard:
    """Cells that one loaded model serves, with the keys that each lacks, by id."""

    plan: Plan
    store: Store
    cells: list[Cell]
    todo: dict[str, set[str]]
    failed: set[str] = field(default_factory=set)
    cuts: dict[int | None, str | None] = field(default_factory=dict)

    def run(self) -> Iterator[Event]:
        yield Said(f"loading {self.cells[0].model['path']}")
        try:
            _quiet()
            checkpoint, held = instantiate(self.cells[0].model, "model", "fovea.models"), ExitStack()
            checkpoint.check()
            model = held.enter_context(adapt(checkpoint.load()))
        except Unwritable:
            raise
        except Exception as error:
            yield from [self.fail(cell, error) for cell in self.cells]
            return
        with held:
            cells = [*self.cells, *self.beside()]
            yield from map(Said, sorted({why for cell in cells if (why := self.cut(model, cell))}))
            methods = {cell.id: instantiate(cell.method, "method", "fovea.methods") for cell in cells}
            yield Started({cell: len(missing) for cell, missing in self.todo.items()})
            tracing = Tracing(self.plan, self.store, model)
            for cell in cells:
                yield from self.guarded(cell, partial(self.warm_up, tracing, methods[cell.id], cell))
            for i, batch in enumerate(self.rounds()):
                lacking = {c: keys & {s.key for s in batch} for c, keys in self.todo.items()}
                timed = {cell.dense for cell in self.cells if lacking[cell.id]}
                for cell in turn(cells, i):
                    missing = lacking.get(cell.id, set())
                    if (missing or cell.id in timed) and cell.id not in self.failed:
                        work = partial(self.batch, model, methods[cell.id], cell, batch, missing)
                        yield from self.guarded(cell, work)

    def beside(self) -> list[Cell]:
        """Finished baselines: timed again beside what is compared with them, so that both were timed in one
        session."""
        wanted = {cell.dense for cell in self.cells} - {cell.id for cell in self.cells}
        return [cell for cell in self.plan.cells if cell.id in wanted]

    def rounds(self) -> Iterator[list[Sample]]:
        """The plan's batches of which any cell lacks something: the same for all cells, so that times pair,
        and the same after a kill, so that no last bit of an image depends on where it struck."""
        lacking, size = set().union(*self.todo.values()), self.plan.settings.batch
        for first in range(0, len(self.plan.samples), size):
            batch = self.plan.samples[first : first + size]
            if lacking & {s.key for s in batch}:
                yield batch

    def guarded(self, cell: Cell, work: Callable[[], list[Event]]) -> Iterator[Event]:
        """Whatever a method raises is its cell's failure, sys.exit() too; a full disk is everybody's."""
        try:
            told = work()
        except (KeyboardInterrupt, Unwritable):
            raise
        except BaseException as error:
            told = [self.fail(cell, error)]
        if cell.id in self.failed:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        yield from told

    def fail(self, cell: Cell, error: BaseException) -> Failed:
        """The failure becomes data; the other cells go on."""
        self.failed.add(cell.id)
        failure = FailureRecord(
            cell=cell.id,
            time=now(),
            type=storable(type(error).__name__, 100),
            message=storable(_message(error), MESSAGE),
            traceback=storable("".join(traceback.format_exception(error)), TRACEBACK),
        )
        self.store.append(failure)
        return Failed(cell.id, cell.label, f"{failure.type}: {failure.message}")

    def cut(self, model: Model, cell: Cell) -> str | None:
        """How many of the study's prompts its text encoders cut, as a sentence."""
        limit = cell.model["max_sequence_length"]
        if limit not in self.cuts:
            prompts = [*dict.fromkeys(sample.prompt.text for sample in self.plan.samples)]
            self.cuts[limit] = text_limits.told(model.cut(prompts, limit), len(prompts))
        return self.cuts[limit]

    def warm_up(self, tracing: "Tracing", method: Method, cell: Cell) -> list[Event]:
        """One call of a full batch, timed as the cold start, and the pass that counts FLOPs and makes traces;
        neither is kept among the repetitions."""
        batch, before = self.plan.samples[: self.plan.settings.batch], compile_seconds()
        first = make(tracing.model, method, cell, batch)
        cold = WarmUpRecord(
            cell=cell.id,
            session=self.store.session,
            size=len(batch),
            seconds=first.seconds,
            compile_seconds=compile_seconds() - before,
            cut=self.cut(tracing.model, cell),
        )
        self.store.append(cold)
        told: list[Event] = [WarmedUp(cell.id, first.whole / len(batch))]
        try:
            tracing(cell, method)
        except Unwritable:
            raise
        except Exception as error:  # the images are worth having without it
            told.append(Said(f"{cell.label}: neither traced nor its FLOPs counted: {_message(error)}"))
        return told

    def batch(
        self, model: Model, method: Method, cell: Cell, batch: Sequence[Sample], missing: set[str]
    ) -> list[Event]:
        """Makes the whole batch and stores its time, with the images that are missing."""
        made = make(model, method, cell, batch)
        of = Origin(machine(cell.model["device"]), self.plan.random_weights)
        keep(self.store, cell, made, batch, missing, of)
        return [Made(cell.id, cell.label, len(missing), made.whole)] if missing else []


@dataclass
class Tracing:
    """Of the cells that one loaded model serves. dense: by id of a baseline, what the others are compared
    with, made when it is first needed; None where the baseline failed."""

    plan: Plan
    store: Store
    model: Model
    dense: dict[str, Trajectory | None] = field(default_factory=dict)

    @property
    def batch(self) -> Sequence[Sample]:
        """The first of the study's samples, in one call."""
        return self.plan.samples[: min(self.plan.settings.batch, IMAGES)]

    def __call__(self, cell: Cell, method: Method) -> None:
        """Notes the cell's FLOPs, counted and by the closed form, of so many images, and their traces."""
        lacking = {s.key for s in self.batch} - set(read(self.store, cell.id))
        if lacking or self.store.samples(cell.id).flops is None:
            self.trace(cell, method)

    def trace(self, cell: Cell, method: Method) -> None:
        own = cell.id == cell.dense
        ready = flow(self.model, cell, self.batch)
        state = noise(self.model, cell, self.batch)
        seen = Observer(ready, state, None if own else self.reference(cell.dense), keep=own)
        flops = count_flops(lambda: method(ready, on_step=seen))[1]
        closed = sum(map(ready.flops, range(len(self.batch))))
        self.store.append(FlopsRecord(cell=cell.id, images=len(self.batch), counted=flops, closed=closed))
        save(self.store, cell.id, seen.traces([s.key for s in self.batch]))
        if own:
            self.dense[cell.id] = seen.trajectory()

    def reference(self, dense: str) -> Trajectory | None:
        """Of a baseline by id: made anew where it was finished in an earlier run."""
        if dense not in self.dense:
            self.dense[dense] = None
            cell = next((cell for cell in self.plan.cells if cell.id == dense), None)
            if cell and (self.store.samples(dense) or not self.store.samples(dense).failures):
                self.trace(cell, instantiate(cell.method, "method", "fovea.methods"))
        return self.dense[dense]


def _quiet() -> None:
    """Loading has bars of its own in two libraries; ours is enough."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _message(error: BaseException) -> str:
    try:
        text = (str(error) or type(error).__name__).strip()
    except Exception as broken:  # an error's own words are the user's code, too
        text = f"{type(error).__name__}, whose text cannot be had: {type(broken).__name__}"
    return (
        f"{text}; a smaller batch=... needs less memory"
        if isinstance(error, torch.OutOfMemoryError)
        else text
    )

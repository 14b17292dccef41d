"""Run the cells of a plan in this process: load once, interleave the methods, store as it goes, survive a
failure."""

import gc
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import diffusers
import torch
import transformers

from fovea.eval.speed import compile_seconds, count_flops, turn
from fovea.models import Model, adapt
from fovea.study.config.instantiate import build
from fovea.study.config.prompts import Sample
from fovea.study.files import Unwritable, storable
from fovea.study.plan.cells import GENERATION, Cell
from fovea.study.plan.fingerprint import digest, machine, threads
from fovea.study.plan.plan import Plan
from fovea.study.records import CellRecord, FailureRecord, FlopsRecord, WarmUpRecord
from fovea.study.run.generate import Method, Origin, flow, keep, make, noise, now
from fovea.study.run.observe import Observer, Trajectory
from fovea.study.run.progress import Progress
from fovea.study.run.trace import read, save
from fovea.study.store import Store

IMAGES = 4  # of each cell are traced, at most
MESSAGE, TRACEBACK = 2_000, 20_000  # characters of a failure, at most


@dataclass
class Run:
    """What a process needs to work on a study."""

    plan: Plan
    store: Store
    progress: Progress
    failed: set[str] = field(default_factory=set)

    def fail(self, cell: Cell, error: BaseException) -> None:
        """The failure becomes data; the other cells go on."""
        self.failed.add(cell.id)
        trace = "".join(traceback.format_exception(error))
        failure = FailureRecord(
            cell=cell.id,
            time=now(),
            type=storable(type(error).__name__, 100),
            message=storable(_message(error), MESSAGE),
            traceback=storable(trace, TRACEBACK),
        )
        self.store.append(failure)
        self.progress.failed(cell, f"{failure.type}: {failure.message}")


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
                self.trace(cell, build(cell.method, "method", "fovea.methods"))
        return self.dense[dense]


def execute(plan: Plan, store: Store, progress: Progress) -> set[str]:
    """Makes what is missing. Gives the ids of the cells that failed."""
    torch.set_num_threads(threads())
    run = Run(plan, store, progress)
    for cell in plan.cells:
        store.describe(CellRecord.of(cell))
    for cells in _by_loading(plan.cells):
        todo = pending(plan, store, cells)
        if todo:
            _run_group(run, cells, todo)
    return run.failed


def pending(plan: Plan, store: Store, cells: Sequence[Cell]) -> dict[str, set[str]]:
    """Cell id to the keys it lacks; only cells that lack some."""
    keys = {s.key for s in plan.samples}
    lacking = {cell.id: keys - set(store.samples(cell.id)) for cell in cells}
    return {cell: missing for cell, missing in lacking.items() if missing}


def _by_loading(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that one loaded pipeline serves: their models differ in size, steps or guidance at most."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        weights = {key: value for key, value in cell.model.items() if key not in GENERATION}
        groups.setdefault(digest(weights), []).append(cell)
    return list(groups.values())


def _run_group(run: Run, cells: Sequence[Cell], todo: dict[str, set[str]]) -> None:
    work = [cell for cell in cells if cell.id in todo]
    run.progress.say(f"loading {work[0].model['path']}")
    try:
        _quiet()
        pipe = build(work[0].model, "model", "fovea.models").load()
    except Exception as error:
        for cell in work:
            run.fail(cell, error)
        return
    with adapt(pipe) as model:
        methods = {cell.id: build(cell.method, "method", "fovea.methods") for cell in work}
        run.progress.start({cell.id: len(todo[cell.id]) for cell in work})
        tracing = Tracing(run.plan, run.store, model)
        for cell in work:
            _guarded(run, cell, partial(_warm_up, run, tracing, methods[cell.id], cell))
        for i, batch in enumerate(_rounds(run.plan, todo)):
            for cell in turn(work, i):
                missing = todo[cell.id] & {s.key for s in batch}
                if missing and cell.id not in run.failed:
                    _guarded(run, cell, partial(_batch, run, model, methods[cell.id], cell, batch, missing))


def _quiet() -> None:
    """Loading has bars of its own in two libraries; ours is enough."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _rounds(plan: Plan, todo: dict[str, set[str]]) -> Iterable[list[Sample]]:
    """The plan's batches of which any cell lacks something: the same for all cells, so that times pair, and
    the same after a kill, so that no last bit of an image depends on where it struck."""
    lacking = set().union(*todo.values())
    for first in range(0, len(plan.samples), plan.settings.batch):
        batch = plan.samples[first : first + plan.settings.batch]
        if lacking & {s.key for s in batch}:
            yield batch


def _guarded(run: Run, cell: Cell, work: Callable[[], None]) -> None:
    """Whatever a method raises is its cell's failure, sys.exit() too; a full disk is everybody's."""
    try:
        work()
    except (KeyboardInterrupt, Unwritable):
        raise
    except BaseException as error:
        run.fail(cell, error)
        del error
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _warm_up(run: Run, tracing: Tracing, method: Method, cell: Cell) -> None:
    """One call of a full batch, timed as the cold start, and the pass that counts FLOPs and makes traces;
    neither is kept among the repetitions."""
    batch, compiled = run.plan.samples[: run.plan.settings.batch], compile_seconds()
    first = make(tracing.model, method, cell, batch)
    compiled = compile_seconds() - compiled
    run.progress.expect(cell, (first.seconds + first.encode + first.decode) / len(batch))
    run.store.append(
        WarmUpRecord(
            cell=cell.id,
            session=run.store.session,
            size=len(batch),
            seconds=first.seconds,
            compile_seconds=compiled,
        )
    )
    try:
        tracing(cell, method)
    except Unwritable:
        raise
    except Exception as error:  # the images are worth having without it
        run.progress.say(f"{cell.label}: neither traced nor its FLOPs counted: {_message(error)}")


def _batch(
    run: Run, model: Model, method: Method, cell: Cell, batch: Sequence[Sample], missing: set[str]
) -> None:
    """Makes the whole batch and stores what is missing of it."""
    made = make(model, method, cell, batch)
    of = Origin(machine(cell.model["device"]), run.plan.random_weights)
    keep(run.store, cell, made, batch, missing, of)
    run.progress.made(cell, len(missing), made.seconds + made.encode + made.decode)


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

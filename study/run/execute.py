"""Make shards in this process: load a model once, take its methods in turns, store as it goes, survive a
failure."""

import gc
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from time import monotonic

import diffusers
import torch
import transformers

from fovea.eval.speed import compile_seconds, graphs, turn
from fovea.models import Model, adapt, text_limits
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.files import Unwritable, storable
from fovea.study.plan.cells import Cell
from fovea.study.plan.fingerprint import machine, threads
from fovea.study.plan.plan import Plan, by_loading, loading
from fovea.study.records import CellRecord, FailureRecord, WarmUpRecord
from fovea.study.run.events import Event, Failed, Made, Said, WarmedUp
from fovea.study.run.generate import Made as MadeOf
from fovea.study.run.generate import Origin, keep, make, now
from fovea.study.run.limits import limited, out_of_memory
from fovea.study.run.observe import Tracing
from fovea.study.run.writing import Writing
from fovea.study.store import Store

MESSAGE, TRACEBACK = 2_000, 20_000  # characters of a failure, at most


def run_shard(plan: Plan, cells: Collection[str], samples: Collection[str], store: Store) -> Iterator[Event]:
    """One shard, for itself: see `Runner.run`. All that it takes is plain and pickles."""
    with Runner(plan, store) as runner:
        yield from runner.run(cells, samples)


def pending(store: Store, cells: Iterable[Cell], samples: Collection[str]) -> dict[str, set[str]]:
    """Cell id to the keys it lacks; only cells that lack some."""
    lacking = {cell.id: set(samples) - store.samples(cell.id).keys() for cell in cells}
    return {cell: missing for cell, missing in lacking.items() if missing}


@dataclass
class Loaded:
    """A model in memory. of: what it was loaded by. warm, traced: ids of cells that are. cuts: by what a
    text encoder may read at most, how many prompts it cuts, as a sentence. halved: those of which
    its memory holds no full batch."""

    of: str
    model: Model
    tracing: Tracing
    warm: set[str] = field(default_factory=set)
    traced: set[str] = field(default_factory=set)
    halved: set[str] = field(default_factory=set)
    cuts: dict[int | None, str | None] = field(default_factory=dict)


@dataclass
class Runner:
    """Makes one shard after the other on the device of this process. A model stays loaded, and its cells
    warm, until a shard asks for another one. failed: cells that are not tried again. until: when
    time_limit is over, on the monotonic clock."""

    plan: Plan
    store: Store
    failed: set[str] = field(default_factory=set)
    until: float = inf
    loaded: Loaded | None = None
    writing: Writing = field(default_factory=Writing)
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Runner":
        limit = self.plan.settings.time_limit
        self.until = inf if limit is None else monotonic() + limit
        return self

    @property
    def over(self) -> bool:
        return monotonic() >= self.until

    def __exit__(self, *_: object) -> None:
        self.writing.close()
        self._unload()

    def run(self, cells: Collection[str], samples: Collection[str]) -> Iterator[Event]:
        """Makes what is missing of these samples, by key, in these cells, by id, and tells of it. The device,
        its name and what it can hold are found out here, where it runs. Raises Unwritable where the results
        cannot be written: whatever else goes wrong is a cell's failure."""
        torch.set_num_threads(threads())
        chosen = [cell for cell in self.plan.cells if cell.id in cells and cell.id not in self.failed]
        for cell in chosen:
            self.store.describe(CellRecord.of(cell))
        for group in by_loading(chosen):
            todo = pending(self.store, group, samples)
            if todo:
                yield from self._make([cell for cell in group if cell.id in todo], todo)
                self.writing.wait()

    def _make(self, lacking: Sequence[Cell], todo: Mapping[str, set[str]]) -> Iterator[Event]:
        """Cells that one loaded model serves, with the keys that each lacks, by id."""
        yield from self._load(lacking)
        if self.loaded is None:
            return
        cells = [*lacking, *self.beside(lacking)]
        yield from self._prepare(self.loaded, cells, set().union(*todo.values()))
        for i, batch in enumerate(self.rounds(todo)):
            missing = {c: keys & {s.key for s in batch} for c, keys in todo.items()}
            timed = {cell.dense for cell in lacking if missing[cell.id]}
            compared: set[str] = set()  # baselines of what was made of this batch, which time_limit waits for
            for cell in turn(cells, i):
                own = missing.get(cell.id, set())
                if self.over and cell.id not in compared:
                    continue
                if (own or cell.id in timed) and cell.id not in self.failed:
                    compared.add(cell.dense)
                    yield from self.guarded(cell, partial(self.batch, self.loaded, cell, batch, own))

    def _load(self, cells: Sequence[Cell]) -> Iterator[Event]:
        """Their model, unless it is loaded; where that fails, they do."""
        if self.loaded and self.loaded.of == loading(cells[0]):
            return
        self._unload()
        yield Said(f"loading {cells[0].model['path']}")
        try:
            _quiet()
            checkpoint = instantiate(cells[0].model, "model", "fovea.models")
            checkpoint.check()
            model = self._held.enter_context(adapt(checkpoint.load()))
        except Unwritable:
            raise
        except Exception as error:
            yield from [self.fail(cell, error) for cell in cells]
            return
        self.loaded = Loaded(loading(cells[0]), model, Tracing(self.plan, self.store, model))

    def _unload(self) -> None:
        self.loaded = None
        self._held.close()
        _free()

    def _prepare(self, loaded: Loaded, cells: Sequence[Cell], samples: Collection[str]) -> Iterator[Event]:
        """Warms up what is cold, and traces what nobody has; that is of the first samples, and goes with
        them."""
        cold = [cell for cell in cells if cell.id not in loaded.warm]
        yield from map(Said, sorted({why for cell in cold if (why := self.cut(loaded, cell))}))
        for cell in cells:
            if self.over:
                return
            if cell.id not in loaded.warm and cell.id not in self.failed:
                yield from self.guarded(cell, partial(self.warm_up, loaded, cell))
            first = self.plan.samples[0].key
            here = first in samples or first in self.store.samples(cell.id)
            if here and cell.id not in loaded.traced | self.failed:
                yield from self.trace(loaded, cell)

    def beside(self, cells: Sequence[Cell]) -> list[Cell]:
        """Finished baselines: timed again beside what is compared with them, so that both were timed in one
        session."""
        wanted = {cell.dense for cell in cells} - {cell.id for cell in cells}
        return [cell for cell in self.plan.cells if cell.id in wanted]

    def rounds(self, todo: Mapping[str, set[str]]) -> Iterator[list[Sample]]:
        """The plan's batches of which any cell lacks something: the same for all cells, so that times pair,
        and the same after a kill, so that no last bit of an image depends on where it struck."""
        lacking, size = set().union(*todo.values()), self.plan.settings.batch
        for first in range(0, len(self.plan.samples), size):
            batch = self.plan.samples[first : first + size]
            if lacking & {s.key for s in batch}:
                yield batch

    def guarded(self, cell: Cell, work: Callable[[], list[Event]]) -> Iterator[Event]:
        """Whatever a method raises is its cell's failure, sys.exit() too; a full disk is everybody's."""
        try:
            with limited(self.plan.settings.cell_timeout):
                told = work()
        except (KeyboardInterrupt, Unwritable):
            raise
        except BaseException as error:
            told = [self.fail(cell, error)]
        if cell.id in self.failed:
            _free()
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

    def cut(self, loaded: Loaded, cell: Cell) -> str | None:
        """How many of the study's prompts its text encoders cut, as a sentence."""
        limit = cell.model["max_sequence_length"]
        if limit not in loaded.cuts:
            prompts = [*dict.fromkeys(sample.prompt.text for sample in self.plan.samples)]
            loaded.cuts[limit] = text_limits.cuts_in_words(loaded.model.cut(prompts, limit), len(prompts))
        return loaded.cuts[limit]

    def warm_up(self, loaded: Loaded, cell: Cell) -> list[Event]:
        """One call of a full batch, timed as the cold start; it is not kept among the repetitions."""
        batch, before, known = self.plan.samples[: self.plan.settings.batch], compile_seconds(), graphs()
        first = next(made for _, made in self.parts(loaded, cell, batch))
        cold = WarmUpRecord(
            cell=cell.id,
            session=self.store.session,
            size=len(first.images),
            seconds=first.seconds,
            compile_seconds=compile_seconds() - before,
            graphs=graphs() - known,
            cut=self.cut(loaded, cell),
        )
        self.store.append(cold)
        loaded.warm.add(cell.id)
        return [WarmedUp(cell.id, first.whole / len(first.images))]

    def trace(self, loaded: Loaded, cell: Cell) -> list[Event]:
        """The pass that counts FLOPs and makes traces: nothing of it is timed."""
        loaded.traced.add(cell.id)
        try:
            loaded.tracing(cell)
        except Unwritable:
            raise
        except Exception as error:  # the images are worth having without it
            return [Said(f"{cell.label}: neither traced nor its FLOPs counted: {_message(error)}")]
        return []

    def batch(self, loaded: Loaded, cell: Cell, batch: Sequence[Sample], missing: set[str]) -> list[Event]:
        """Makes the whole batch and stores its time, with the images that are missing."""
        of = Origin(machine(cell.model["device"]), self.plan.random_weights)
        seconds = 0.0
        for part, made in self.parts(loaded, cell, batch):
            work = partial(keep, self.store, cell, made, part, missing & {s.key for s in part}, of)
            self.writing(work, beside=loaded.model.device.type != "cpu")
            seconds += made.whole
        return [Made(cell.id, cell.label, len(missing), seconds)] if missing else []

    def parts(
        self, loaded: Loaded, cell: Cell, batch: Sequence[Sample]
    ) -> Iterator[tuple[Sequence[Sample], MadeOf]]:
        """The batch as it is made: whole, or, where the memory does not do for it, in halves, for the images
        alone: their times are of another size, and say so."""
        method = loaded.tracing.method(cell)
        if cell.id not in loaded.halved:
            try:
                yield batch, make(loaded.model, method, cell, batch)
                return
            except Exception as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                loaded.halved.add(cell.id)
        _free()
        half = (self.plan.settings.batch + 1) // 2
        for part in filter(None, (batch[:half], batch[half:])):
            made = make(loaded.model, method, cell, part)
            yield part, replace(made, state=made.state | {"halved": True})


def _free() -> None:
    """Gives memory back that nothing uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quiet() -> None:
    """Loading has bars of its own in two libraries; ours is enough."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _message(error: BaseException) -> str:
    try:
        text = (str(error) or type(error).__name__).strip()
    except Exception as broken:  # an error's own words are the user's code, too
        text = f"{type(error).__name__}, whose text cannot be had: {type(broken).__name__}"
    return f"{text}; a smaller batch=... needs less memory" if out_of_memory(error) else text

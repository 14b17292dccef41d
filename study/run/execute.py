"""Make shards in this process: load a model once, alternate between its methods, store results as they are
made, and survive failures."""

import gc
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from time import monotonic

import diffusers
import torch
import transformers

from fovea.eval.speed import alternating, compile_seconds, graphs
from fovea.models import Model, adapt, text_limits
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.files import Unwritable, storable
from fovea.study.plan.cells import Cell
from fovea.study.plan.fingerprint import machine, threads
from fovea.study.plan.plan import Plan, by_loading, loading
from fovea.study.records import CellRecord, FailureRecord, WarmUpRecord
from fovea.study.run.events import Event, Failed, Made, Message, WarmedUp
from fovea.study.run.generate import BatchResult, Origin, generate_batch, now, store_batch
from fovea.study.run.limits import limited, out_of_memory
from fovea.study.run.observe import Tracing
from fovea.study.run.writing import BackgroundWriter
from fovea.study.store import Store

MAX_MESSAGE, MAX_TRACEBACK = 2_000, 20_000  # maximum number of characters stored of a failure


@dataclass
class Loaded:
    """A model in memory.

    of: digest of the settings it was loaded with.
    warm, traced: ids of the cells that are warmed up, and traced.
    halved: ids of the cells for which memory does not hold a full batch.
    cuts: by text-encoder limit, a sentence on how many prompts are truncated.
    """

    of: str
    model: Model
    tracing: Tracing
    warm: set[str] = field(default_factory=set)
    traced: set[str] = field(default_factory=set)
    halved: set[str] = field(default_factory=set)
    cuts: dict[int | None, str | None] = field(default_factory=dict)


@dataclass
class Runner:
    """Makes shards one after another on this process's device. A model stays loaded, and its cells warm,
    until a shard needs another model.

    failed: cells that are not tried again.
    deadline: when time_limit is over, on the monotonic clock.
    """

    plan: Plan
    store: Store
    failed: set[str] = field(default_factory=set)
    deadline: float = inf
    loaded: Loaded | None = None
    writing: BackgroundWriter = field(default_factory=BackgroundWriter)
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Runner":
        limit = self.plan.settings.time_limit
        self.deadline = inf if limit is None else monotonic() + limit
        return self

    @property
    def out_of_time(self) -> bool:
        return monotonic() >= self.deadline

    def __exit__(self, *_: object) -> None:
        self.writing.close()
        self._unload()

    def run(self, cells: Collection[str], samples: Collection[str]) -> Iterator[Event]:
        """Make the missing samples (by key) of these cells (by id), yielding events. The device is determined
        here, where the shard runs. Raises Unwritable if results cannot be written; any other error is the
        failure of one cell."""
        torch.set_num_threads(threads())
        chosen = [cell for cell in self.plan.cells if cell.id in cells and cell.id not in self.failed]
        for cell in chosen:
            self.store.describe(CellRecord.of(cell))
        for group in by_loading(chosen):
            todo = self.store.lacking([cell.id for cell in group], samples)
            if todo:
                yield from self._make([cell for cell in group if cell.id in todo], todo)
                self.writing.wait()

    def _make(self, lacking: Sequence[Cell], todo: Mapping[str, set[str]]) -> Iterator[Event]:
        """Make cells that share one loaded model. todo: the keys that each lacks, by id."""
        yield from self._load(lacking)
        if self.loaded is None:
            return
        cells = [*lacking, *self.finished_baselines(lacking)]
        yield from self._prepare(self.loaded, cells, set().union(*todo.values()))
        for i, batch in enumerate(self.rounds(todo)):
            missing = {c: keys & {s.key for s in batch} for c, keys in todo.items()}
            timed = {cell.dense for cell in lacking if missing[cell.id]}
            compared: set[str] = set()  # baselines of cells made in this batch: run even after time_limit
            for cell in alternating(cells, i):
                own = missing.get(cell.id, set())
                if self.out_of_time and cell.id not in compared:
                    continue
                if (own or cell.id in timed) and cell.id not in self.failed:
                    compared.add(cell.dense)
                    yield from self.guarded(cell, partial(self.batch, self.loaded, cell, batch, own))

    def _load(self, cells: Sequence[Cell]) -> Iterator[Event]:
        """Load the cells' model unless it is loaded; on an error, all of them fail."""
        if self.loaded and self.loaded.of == loading(cells[0]):
            return
        self._unload()
        yield Message(f"loading {cells[0].model['path']}")
        try:
            _disable_library_bars()
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
        """Warm up and trace the cells that need it. Traces are of the study's first samples, and are made
        with their shard or after it."""
        cold = [cell for cell in cells if cell.id not in loaded.warm]
        yield from map(Message, sorted({why for cell in cold if (why := self.truncated(loaded, cell))}))
        for cell in cells:
            if self.out_of_time:
                return
            if cell.id not in loaded.warm and cell.id not in self.failed:
                yield from self.guarded(cell, partial(self.warm_up, loaded, cell))
            first = self.plan.samples[0].key
            here = first in samples or first in self.store.samples(cell.id)
            if here and cell.id not in loaded.traced | self.failed:
                yield from self.trace(loaded, cell)

    def finished_baselines(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the finished baselines of these cells, of the same loaded model. They are timed again so
        that both sides of a comparison come from one session. A sibling's is of another model, which is not
        loaded."""
        wanted = {cell.dense for cell in cells} - {cell.id for cell in cells}
        served = {loading(cell) for cell in cells}
        return [cell for cell in self.plan.cells if cell.id in wanted and loading(cell) in served]

    def rounds(self, todo: Mapping[str, set[str]]) -> Iterator[list[Sample]]:
        """Yield the plan's batches of which some cell lacks an image. The batches are the same for every
        cell, so that times pair, and independent of interruptions, so that images are reproducible to the
        last bit."""
        lacking, size = set().union(*todo.values()), self.plan.settings.batch
        for first in range(0, len(self.plan.samples), size):
            batch = self.plan.samples[first : first + size]
            if lacking & {s.key for s in batch}:
                yield batch

    def guarded(self, cell: Cell, work: Callable[[], list[Event]]) -> Iterator[Event]:
        """Run `work`. Any exception, SystemExit included, becomes the cell's failure, except
        KeyboardInterrupt and Unwritable (for example a full disk)."""
        try:
            with limited(self.plan.settings.cell_timeout):
                events = work()
        except (KeyboardInterrupt, Unwritable):
            raise
        except BaseException as error:
            events = [self.fail(cell, error)]
        if cell.id in self.failed:
            _free()
        yield from events

    def fail(self, cell: Cell, error: BaseException) -> Failed:
        """Record an exception as the cell's failure; the other cells continue."""
        self.failed.add(cell.id)
        failure = FailureRecord(
            cell=cell.id,
            time=now(),
            type=storable(type(error).__name__, 100),
            message=storable(_message(error), MAX_MESSAGE),
            traceback=storable("".join(traceback.format_exception(error)), MAX_TRACEBACK),
        )
        self.store.append(failure)
        return Failed(cell.id, cell.label, f"{failure.type}: {failure.message}")

    def truncated(self, loaded: Loaded, cell: Cell) -> str | None:
        """Return a sentence on how many of the study's prompts the text encoders truncate; None for none."""
        limit = cell.model["max_sequence_length"]
        if limit not in loaded.cuts:
            prompts = [*dict.fromkeys(sample.prompt.text for sample in self.plan.samples)]
            loaded.cuts[limit] = text_limits.describe_truncation(
                loaded.model.count_truncated(prompts, limit), len(prompts)
            )
        return loaded.cuts[limit]

    def warm_up(self, loaded: Loaded, cell: Cell) -> list[Event]:
        """Run the cold start, which is not counted among the repetitions."""
        batch, before, known = self.plan.warm_up(cell), compile_seconds(), graphs()
        first = next(made for _, made in self.parts(loaded, cell, batch))
        cold = WarmUpRecord(
            cell=cell.id,
            session=self.store.session,
            size=len(first.images),
            seconds=first.seconds,
            compile_seconds=compile_seconds() - before,
            graphs=graphs() - known,
            cut=self.truncated(loaded, cell),
        )
        self.store.append(cold)
        loaded.warm.add(cell.id)
        return [WarmedUp(cell.id, first.total_seconds / len(first.images))]

    def trace(self, loaded: Loaded, cell: Cell) -> list[Event]:
        """Run the untimed pass that counts FLOPs and records traces."""
        loaded.traced.add(cell.id)
        try:
            loaded.tracing(cell)
        except Unwritable:
            raise
        except Exception as error:  # images are useful without traces
            return [Message(f"{cell.label}: neither traced nor its FLOPs counted: {_message(error)}")]
        return []

    def batch(self, loaded: Loaded, cell: Cell, batch: Sequence[Sample], missing: set[str]) -> list[Event]:
        """Make the whole batch, and store its time and the missing images."""
        of = Origin(machine(cell.model["device"]), self.plan.random_weights)
        seconds = 0.0
        for part, made in self.parts(loaded, cell, batch):
            work = partial(store_batch, self.store, cell, made, part, missing & {s.key for s in part}, of)
            self.writing(work, background=loaded.model.device.type != "cpu")
            seconds += made.total_seconds
        return [Made(cell.id, cell.label, len(missing), seconds)] if missing else []

    def parts(
        self, loaded: Loaded, cell: Cell, batch: Sequence[Sample]
    ) -> Iterator[tuple[Sequence[Sample], BatchResult]]:
        """Yield the batch whole or, if memory does not suffice, in halves. Halves are run only for their
        images: their times are of another batch size and are marked so."""
        method = loaded.tracing.method(cell)
        if cell.id not in loaded.halved:
            try:
                yield batch, generate_batch(loaded.model, method, cell, batch)
                return
            except Exception as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                loaded.halved.add(cell.id)
        _free()
        half = (self.plan.settings.batch + 1) // 2
        for part in filter(None, (batch[:half], batch[half:])):
            made = generate_batch(loaded.model, method, cell, part)
            yield part, replace(made, state=made.state | {"halved": True})


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _disable_library_bars() -> None:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _message(error: BaseException) -> str:
    try:
        text = (str(error) or type(error).__name__).strip()
    except Exception as broken:  # str(error) may be user code and raise
        text = f"{type(error).__name__}, whose text cannot be had: {type(broken).__name__}"
    return f"{text}; a smaller batch=... needs less memory" if out_of_memory(error) else text

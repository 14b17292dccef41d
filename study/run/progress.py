"""Progress with the remaining time: of this process on stderr (a bar on a terminal, plain lines elsewhere),
and of a study from its folder, whoever works on it."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from fovea.study.presence import BEAT, REPORT, at_work
from fovea.study.records import BatchRecord
from fovea.study.run.events import Event, Failed, Made, Message, Remaining, WarmedUp
from fovea.study.store import Store
from fovea.study.streams import plain

EVERY = 10.0  # seconds between plain lines


class Progress:
    """Shows progress. The time per image of each cell comes first from its warm-up, then from its batches."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr)
        self.left: dict[str, int] = {}
        self.cost: dict[str, float] = {}
        self.total, self.workers, self.begun, self.spoken = 0, 1, 0.0, 0.0
        self.first: tuple[float, int] | None = None  # when others' images first came, and their number
        columns = (
            TextColumn("{task.description:24.24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Bar(*columns, console=self.console, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> "Progress":
        self.method_log = MethodLog(self)
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.method_log.close()
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(plain(text), style="dim", markup=False, highlight=False, soft_wrap=True)

    def tell(self, event: Event) -> None:
        match event:
            case Message(text):
                self.say(text)
            case Remaining(images, workers):
                self.workers = workers
                if not self.begun:
                    self._start(images)
                by_others = any(self.left.get(cell, n) > n for cell, n in images.items())
                self.left |= images
                if by_others:
                    self.first = self.first or (time.monotonic(), self.made)
                    self._show("others")
            case WarmedUp(cell, seconds):
                self.cost[cell] = seconds
                self._show(f"warm-up of {len(self.cost)} of {len(self.left)} cells", since=self.begun)
            case Made(cell, label, images, seconds):
                self.left[cell] -= images
                self.cost[cell] = seconds / images
                self._show(label)
            case Failed(cell, label, why):
                self.total -= self.left.pop(cell, 0)
                line = f"failed: {label}: {why.splitlines()[0]}"
                self.console.print(plain(line), style="red", markup=False, highlight=False, soft_wrap=True)

    def _start(self, images: Mapping[str, int]) -> None:
        self.left, self.total, self.begun = dict(images), sum(images.values()), time.monotonic()
        self.say(f"{self.total} images to make in {len(images)} cells; first one uncounted warm-up each")
        if self.bar:
            self.task = self.bar.add_task("warm-up", total=self.total, left="")

    def _show(self, label: str, since: float = 0.0) -> None:
        """Update the bar; without one, print a line if the last one, or `since`, is long ago."""
        done, seconds = self.made, self.seconds_left()
        left = "time left unknown" if seconds is None else f"{clock(seconds)} left"
        if self.bar:
            self.bar.update(self.task, completed=done, description=plain(label), left=left)
        elif done == self.total or time.monotonic() - (self.spoken or since) > EVERY:
            self.spoken = time.monotonic()
            self.say(f"{time.strftime('%H:%M:%S')}  {done}/{self.total} images  {left}  ({label})")

    @property
    def made(self) -> int:
        """Number of images made since the start."""
        return self.total - sum(self.left.values())

    def seconds_left(self) -> float | None:
        """Return the time left, by the times of images that this process knows; without any (all are made by
        others), by how many were made since the first: before it, models were loaded, or jobs queued. None
        until there are two times."""
        left = sum(self.left.values())
        if self.cost or not left:
            return seconds_left(self.left, self.cost, self.workers) or 0.0
        since, before = self.first or (0.0, self.made)
        more = self.made - before
        return left * (time.monotonic() - since) / more if more else None


class MethodLog(logging.Handler):
    """Shows what methods log: settings they choose themselves, such as a schedule matched to a model."""

    def __init__(self, progress: Progress):
        super().__init__(logging.INFO)
        self.progress, self.logger = progress, logging.getLogger("fovea.methods")
        self.logger.addHandler(self)
        self.logger.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.say(record.getMessage())

    def close(self) -> None:
        self.logger.removeHandler(self)
        super().close()


def clock(seconds: float) -> str:
    """Format seconds: 95 -> "1 min 35 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )


@dataclass(frozen=True)
class ActiveWorker:
    """A process at work on the study.

    who: process and host.
    session: name of its records.
    images: number of images it has made.
    shards: number of shards it has on lease.
    reports: it is writing the report.
    silent: seconds since its file was last touched.
    """

    who: str
    session: str
    images: int
    shards: int
    reports: bool
    silent: float

    def __str__(self) -> str:
        silence = f"; not heard of for {clock(self.silent)}" if self.silent > 3 * BEAT else ""
        task = "writes the report" if self.reports else f"{self.shards} shards on lease"
        return f"at work: {self.who}: {self.images} images made, {task}{silence}"


def active_workers(store: Store, cells: Iterable[str]) -> list[ActiveWorker]:
    """Return the processes at work, and what they made of these cells."""
    workers = at_work(store.folder)
    made: Counter[str] = Counter()
    for cell in cells if workers else ():
        made.update(store.samples(cell).of_batch("session").tolist())
    return [
        ActiveWorker(
            str(one),
            one.session,
            made[one.session],
            len(one.shards),
            REPORT in one.leases,
            max(0.0, time.time() - one.last_seen),
        )
        for one in workers
    ]


def seconds_per_image(batches: Iterable[BatchRecord]) -> float | None:
    """Return the median over batches of the time per image, including text encoding and decoding."""
    found = [(b.seconds + b.encode_seconds + b.decode_seconds) / b.size for b in batches]
    return median(found) if found else None


def seconds_left(left: Mapping[str, int], cost: Mapping[str, float], workers: int) -> float | None:
    """Return the time for these images, divided among the workers; None if no cell was timed. Cells that were
    not timed are assumed to cost as much as the others on average.

    left, cost: number of images, and seconds per image, by cell.
    """
    if not cost:
        return None
    typical = fmean(cost.values())
    return sum(images * cost.get(cell, typical) for cell, images in left.items()) / workers


def count_busy(workers: Iterable[ActiveWorker]) -> int:
    """Return the number of processes with shards on lease, or 1."""
    return max(1, sum(worker.shards > 0 for worker in workers))

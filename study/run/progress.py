"""Progress with the time left: of this process on stderr, a bar on a terminal, plain lines elsewhere; and of
a study as it lies in its folder, by whoever works on it."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from fovea.study.presence import BEAT, REPORT, at_work
from fovea.study.records import BatchRecord
from fovea.study.run.events import Event, Failed, Left, Made, Said, Started, WarmedUp
from fovea.study.store import Store
from fovea.study.streams import plain

EVERY = 10.0  # seconds between plain lines


class Progress:
    """Knows how long an image of each cell takes: first from its warm-up, then from its own batches."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr)
        self.left: dict[str, int] = {}
        self.cost: dict[str, float] = {}
        self.total, self.workers, self.spoken = 0, 1, 0.0
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
            case Said(text):
                self.say(text)
            case Started(images):
                self._start(images)
            case Left(images, workers):
                by_others = any(self.left.get(cell, n) > n for cell, n in images.items())
                self.workers, self.left = workers, self.left | dict(images)
                if by_others:
                    self._show("others")
            case WarmedUp(cell, seconds):
                self.cost[cell] = seconds
                self._show("warm-up", always=False)
            case Made(cell, label, images, seconds):
                self.left[cell] -= images
                self.cost[cell] = seconds / images
                self._show(label)
            case Failed(cell, label, why):
                self.total -= self.left.pop(cell, 0)
                line = f"failed: {label}: {why.splitlines()[0]}"
                self.console.print(plain(line), style="red", markup=False, highlight=False, soft_wrap=True)

    def _start(self, images: Mapping[str, int]) -> None:
        self.left, self.cost, self.total, self.spoken = dict(images), {}, sum(images.values()), 0.0
        self.say(f"{self.total} images to make in {len(images)} cells; first one uncounted warm-up each")
        if self.bar:
            self.task = self.bar.add_task("warm-up", total=self.total, left="")

    def _show(self, label: str, always: bool = True) -> None:
        done, left = self.total - sum(self.left.values()), f"{clock(self.seconds_left())} left"
        if self.bar:
            self.bar.update(self.task, completed=done, description=plain(label), left=left)
        elif always and (done == self.total or time.monotonic() - self.spoken > EVERY):
            self.spoken = time.monotonic()
            self.say(f"{time.strftime('%H:%M:%S')}  {done}/{self.total} images  {left}  ({label})")

    def seconds_left(self) -> float:
        known = list(self.cost.values()) or [0.0]
        typical = sum(known) / len(known)
        alone = sum(images * self.cost.get(cell, typical) for cell, images in self.left.items())
        return alone / self.workers


class MethodLog(logging.Handler):
    """Says what methods log: what they settle for themselves, such as a schedule matched to a model."""

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
    """95 -> "1 min 35 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )


@dataclass(frozen=True)
class Maker:
    """Of a process: what its records go by, images that it made, shards that it has on lease, whether it
    writes the report, seconds since it was heard of."""

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


def makers(store: Store, cells: Iterable[str]) -> list[Maker]:
    """Those at work, with what they made of these cells."""
    there = at_work(store.folder)
    made: Counter[str] = Counter()
    for cell in cells if there else ():
        made.update(store.samples(cell).of_batch("session").tolist())
    return [
        Maker(
            str(one),
            one.session,
            made[one.session],
            len(one.shards),
            REPORT in one.leases,
            max(0.0, time.time() - one.last_seen),
        )
        for one in there
    ]


def whole_seconds(batches: Iterable[BatchRecord]) -> float | None:
    """Of an image, with its text encoded and decoded: the median over batches."""
    found = [(b.seconds + b.encode_seconds + b.decode_seconds) / b.size for b in batches]
    return median(found) if found else None


def seconds_left(left: Mapping[str, int], cost: Mapping[str, float | None], makers: Iterable[Maker]) -> float:
    """Of these images by cell, at so many seconds each where that is known, shared by who makes them."""
    alone = sum(n * (cost[cell] or 0.0) for cell, n in left.items())
    return alone / max(1, sum(maker.shards > 0 for maker in makers))

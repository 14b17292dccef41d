"""Who works on a study just now, what each has made of it, and how long the rest takes."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from fovea.study.presence import BEAT, REPORT, at_work
from fovea.study.records import BatchRecord
from fovea.study.run.progress import clock
from fovea.study.store import Store


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
        heard = f"; not heard of for {clock(self.silent)}" if self.silent > 3 * BEAT else ""
        has = "writes the report" if self.reports else f"{self.shards} shards on lease"
        return f"at work: {self.who}: {self.images} images made, {has}{heard}"


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
            REPORT in one.has,
            max(0.0, time.time() - one.heard),
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

"""What the timings of a cell hold besides the median: text and decoding, cold start, energy, and how quiet
the machine was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fovea.eval.interval import Interval, median_interval
from fovea.eval.speed import break_even
from fovea.eval.statistics import mean_interval
from fovea.study.records import BatchRecord, Finished, WarmUpRecord


@dataclass(frozen=True)
class Speed:
    """encode, decode: seconds per image. joules: per image, of the whole card or processor, or why not.
    repetitions: timed calls of a full batch, of which `throttled` are no measurements and count nowhere, and
    `contended` shared the device; apart: those whose dense call was made in another session. first: seconds
    of the cold start, torch.compile's apart, beyond a usual call. pays_off: images until a method has made up
    for it, None if never or unknown.
    cut: prompts that the text encoders cut, as a sentence. halved: calls of half a batch, for want of memory,
    which are no measurements. devices: on which they were timed, by name. graphs: that torch compiled, in the
    cold start and in timed calls, `compiling_calls` of them, whose times have that in them."""

    encode: Interval
    decode: Interval
    joules: Interval | None
    joules_unavailable: str | None
    memory_process: float | None
    repetitions: int
    throttled: int
    contended: int
    apart: int = 0
    first: float | None = None
    compiling: float | None = None
    pays_off: int | None = None
    cut: str | None = None
    halved: int = 0
    devices: tuple[str, ...] = ()
    graphs: int = 0
    compiling_calls: int = 0


def batches(records: Finished, valid: bool = True) -> dict[str, BatchRecord]:
    """The timed calls behind a cell's samples, without throttled ones if `valid`. A smaller last batch is
    timed for itself: seconds per image would not compare, so it counts only where there is no full one."""
    largest = max((b.size for b in records.batches.values()), default=0)
    full = {name: b for name, b in records.batches.items() if b.size == largest}
    return {name: b for name, b in full.items() if not (valid and spoilt(b))}


def pairs(dense: Finished, records: Finished) -> dict[str, tuple[BatchRecord, BatchRecord]]:
    """By batch, the dense call and the cell's: of one session where there are such, else the last ones; on
    the same device in any case."""
    full = {batch.size for batch in batches(records, valid=False).values()}
    found: dict[str, tuple[BatchRecord, BatchRecord]] = {}
    timed: dict[str, list[BatchRecord]] = {}
    for batch in dense.timings:
        timed.setdefault(batch.id, []).append(batch)
    for own in records.timings:
        for other in timed.get(own.id, []):
            usable = own.size in full and own.device == other.device and not (spoilt(own) or spoilt(other))
            known = found.get(own.id)
            if usable and (known is None or not apart(other, own) or apart(*known)):
                found[own.id] = other, own
    return found


def apart(a: BatchRecord, b: BatchRecord) -> bool:
    """Timed in different sessions, between which clocks and load may have changed."""
    return a.session != b.session


def spoilt(batch: BatchRecord) -> bool:
    """No measurement: throttled, or made in halves for want of memory."""
    return throttled(batch) or halved(batch)


def halved(batch: BatchRecord) -> bool:
    return bool(batch.state.get("halved"))


def throttled(batch: BatchRecord) -> bool:
    return bool(batch.state.get("throttled"))


def contended(batch: BatchRecord) -> bool:
    """Another process was on the card; or the machine's cores did not do for ours and the others' work."""
    s = batch.state
    if s.get("cores"):
        return (
            s["cores_used_by_others"] > 0.1 and s["cores_used"] + s["cores_used_by_others"] > s["cores"] - 0.1
        )
    return bool(s.get("other_processes"))


def seconds(records: Finished) -> Interval | None:
    return per_image(batches(records).values(), "seconds")


def per_image(timed: Iterable[BatchRecord], key: str) -> Interval | None:
    values = [getattr(b, key) / b.size for b in timed]
    return median_interval(values) if values else None


def speed(records: Finished, dense: Finished | None) -> Speed | None:
    """dense: those of the dense run, of another cell."""
    every, kept = batches(records, valid=False), list(batches(records).values())
    encode, decode = (per_image(kept or every.values(), key) for key in ("encode_seconds", "decode_seconds"))
    if encode is None or decode is None:
        return None
    energy, why = _joules(kept)
    memory = [b.memory_process for b in kept if b.memory_process]
    return Speed(
        encode,
        decode,
        energy,
        why,
        max(memory, default=None),
        repetitions=len(every),
        throttled=sum(map(throttled, every.values())),
        halved=sum(map(halved, records.batches.values())),
        graphs=sum(map(_graphs, every.values())) + (records.warm_up.graphs if records.warm_up else 0),
        compiling_calls=sum(_graphs(batch) > 0 for batch in kept),
        devices=tuple(sorted({b.device for b in every.values()})),
        contended=sum(map(contended, kept)),
        apart=sum(apart(*pair) for pair in pairs(dense, records).values()) if dense is not None else 0,
        cut=records.warm_up.cut if records.warm_up else None,
        **_cold(records.warm_up, seconds(records), None if dense is None else seconds(dense)),
    )


def _graphs(batch: BatchRecord) -> int:
    return batch.state.get("graphs_compiled", 0)


def _joules(kept: Sequence[BatchRecord]) -> tuple[Interval | None, str | None]:
    """The mean, in which the steps of the counters average out."""
    joules = [b.state["joules"] / b.size for b in kept if b.state.get("joules") is not None]
    if joules:
        return mean_interval(joules), None
    return None, next((why for b in kept if (why := b.state.get("joules_unavailable"))), "not recorded")


def _cold(cold: WarmUpRecord | None, usual: Interval | None, dense: Interval | None) -> dict[str, Any]:
    if cold is None or usual is None:
        return {}
    beyond = cold.seconds - usual.value * cold.size
    known = {"first": beyond - cold.compile_seconds, "compiling": cold.compile_seconds}
    return known | {"pays_off": None if dense is None else break_even(beyond, dense.value, usual.value)}

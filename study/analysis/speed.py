"""Statistics of a cell's timed batches: encoding, decoding, cold start, energy, and disturbances."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fovea.eval.interval import Interval, median_interval
from fovea.eval.statistics import mean_interval
from fovea.study.records import BatchRecord, Finished, WarmUpRecord

Pair = tuple[BatchRecord, BatchRecord]  # of the dense run, of the cell


@dataclass(frozen=True)
class Speed:
    """Timing statistics of one cell, beyond seconds per image and speedup.

    encode, decode: seconds per image of text encoding and of decoding.
    joules: energy per image of the whole GPU or CPU; joules_unavailable: reason if it was not measured.
    memory_process_bytes: peak memory of the process.
    memory_since_start: a cell's memory is the peak of the process since its start, so also of earlier cells.
    repetitions: number of timed calls of a full batch.
    repetitions_throttled: those that were throttled, which are excluded everywhere.
    repetitions_contended: those during which others used the device.
    apart: repetitions paired with a dense call of another session.
    elsewhen: those paired with one of their own session, which is not the last, shown one of the dense run.
    cold_start_seconds: by how much the first call took longer than a usual one of as many images, without
        compilation; None if usual calls are of more.
    cold_start_images: number of images of the first call; 0 if there was none.
    compile_seconds: seconds of the first call spent in torch.compile.
    break_even_images: images after which the cold start is recovered; None if never or unknown.
    cut: sentence on prompts truncated by the text encoders, if any.
    halved: calls split in half after running out of memory, which are excluded.
    devices: names of the devices used.
    compiled_graphs: graphs compiled by torch in the first call and in timed calls.
    compiling_calls: timed calls that include compilation.
    """

    encode: Interval
    decode: Interval
    joules: Interval | None
    joules_unavailable: str | None
    memory_process_bytes: float | None
    repetitions: int
    repetitions_throttled: int
    repetitions_contended: int
    apart: int = 0
    elsewhen: int = 0
    memory_since_start: bool = False
    cold_start_seconds: float | None = None
    cold_start_images: int = 0
    compile_seconds: float | None = None
    break_even_images: int | None = None
    cut: str | None = None
    halved: int = 0
    devices: tuple[str, ...] = ()
    compiled_graphs: int = 0
    compiling_calls: int = 0


def batches(records: Finished, valid: bool = True) -> dict[str, BatchRecord]:
    """Return the last timed call of each full batch, without invalid ones if `valid`.

    A smaller last batch is excluded unless it is the only one: its seconds per image are not comparable.
    """
    largest = max((b.size for b in records.batches.values()), default=0)
    full = {name: b for name, b in records.batches.items() if b.size == largest}
    return {name: b for name, b in full.items() if not (valid and invalid(b))}


def pairs(dense: Finished, records: Finished) -> dict[str, Pair]:
    """Return the valid calls of dense and of the cell by full batch, both from the same device.

    Calls of the same session are preferred; otherwise, and among several, the last ones are taken.
    """
    full = {batch.size for batch in batches(records, valid=False).values()}
    found: dict[str, Pair] = {}
    dense_calls: dict[str, list[BatchRecord]] = {}
    for batch in dense.timings:
        dense_calls.setdefault(batch.id, []).append(batch)
    for own in records.timings:
        for other in dense_calls.get(own.id, []):
            usable = own.size in full and own.device == other.device and not (invalid(own) or invalid(other))
            known = found.get(own.id)
            if usable and (known is None or not other_session(other, own) or other_session(*known)):
                found[own.id] = other, own
    return found


def other_session(a: BatchRecord, b: BatchRecord) -> bool:
    """True if two calls are of different sessions, between which clocks and load may have changed."""
    return a.session != b.session


def invalid(batch: BatchRecord) -> bool:
    """True if the call is no valid measurement: throttled, or split in half after running out of memory."""
    return throttled(batch) or halved(batch)


def halved(batch: BatchRecord) -> bool:
    return bool(batch.state.get("halved"))


def throttled(batch: BatchRecord) -> bool:
    return bool(batch.state.get("throttled"))


def contended(batch: BatchRecord) -> bool:
    """True if another process used the GPU, or if on a CPU all cores were busy, some with others' work."""
    s = batch.state
    if s.get("cores"):
        others = s["cores_used_by_others"]
        return others > 0.1 and s["cores_used"] + others > s["cores"] - 0.1
    return bool(s.get("other_processes"))


def seconds(records: Finished) -> Interval | None:
    return per_image(batches(records).values(), "seconds")


def per_image(timed: Iterable[BatchRecord], key: str) -> Interval | None:
    values = [getattr(b, key) / b.size for b in timed]
    return median_interval(values) if values else None


def speed(records: Finished, dense: Finished | None) -> Speed | None:
    """Return timing statistics, or None if nothing was timed. dense: None if the cell is the dense run."""
    every, kept = batches(records, valid=False), list(batches(records).values())
    encode, decode = (per_image(kept or every.values(), key) for key in ("encode_seconds", "decode_seconds"))
    if encode is None or decode is None:
        return None
    energy, why = _joules(kept)
    memory = [b.memory_process for b in kept if b.memory_process]
    warm_up, compared = records.warm_up, pairs(dense, records) if dense is not None else {}
    return Speed(
        encode,
        decode,
        energy,
        why,
        max(memory, default=None),
        repetitions=len(every),
        repetitions_throttled=sum(map(throttled, every.values())),
        halved=sum(map(halved, records.batches.values())),
        compiled_graphs=sum(map(_compiled_graphs, every.values())) + (warm_up.graphs if warm_up else 0),
        compiling_calls=sum(_compiled_graphs(batch) > 0 for batch in kept),
        devices=tuple(sorted({b.device for b in every.values()})),
        repetitions_contended=sum(map(contended, kept)),
        apart=sum(other_session(*pair) for pair in compared.values()),
        elsewhen=_elsewhen(dense, compared),
        memory_since_start=any(b.memory_since_start and b.memory == b.memory_process for b in kept),
        cut=warm_up.cut if warm_up else None,
        **_cold_start(warm_up, kept, None if dense is None else seconds(dense)),
    )


def _elsewhen(dense: Finished | None, compared: Mapping[str, Pair]) -> int:
    last = {} if dense is None else batches(dense)
    alike = {name: own for name, (other, own) in compared.items() if not other_session(other, own)}
    return sum(name in last and other_session(own, last[name]) for name, own in alike.items())


def _compiled_graphs(batch: BatchRecord) -> int:
    return batch.state.get("graphs_compiled", 0)


def _joules(kept: Sequence[BatchRecord]) -> tuple[Interval | None, str | None]:
    """Return the mean joules per image, or why they are unknown.

    The mean, not the median, because the coarse steps of the energy counters average out in it.
    """
    joules = [b.state["joules"] / b.size for b in kept if b.state.get("joules") is not None]
    if joules:
        return mean_interval(joules), None
    return None, next((why for b in kept if (why := b.state.get("joules_unavailable"))), "not recorded")


def _cold_start(
    first: WarmUpRecord | None, kept: Sequence[BatchRecord], dense: Interval | None
) -> dict[str, Any]:
    """Return the fields of a cold start, compared with usual calls if it is of as many images."""
    usual = per_image(kept, "seconds")
    if first is None or usual is None:
        return {}
    if first.size < max(b.size for b in kept):
        return {"cold_start_images": first.size}
    extra = first.seconds - usual.value * first.size
    return {
        "cold_start_seconds": extra - first.compile_seconds,
        "cold_start_images": first.size,
        "compile_seconds": first.compile_seconds,
        "break_even_images": None if dense is None else break_even(extra, dense.value, usual.value),
    }


def break_even(extra: float, dense: float, method: float) -> int | None:
    """Return after how many images a method has amortised `extra` seconds of its first call; None if never.

    extra: what the first call takes beyond a usual one.
    """
    saved = dense - method
    return None if saved <= 0 else math.ceil(max(extra, 0.0) / saved)

"""Notes below the table of a study: its columns, how they were measured, and what is missing."""

from collections.abc import Sequence

from fovea.eval import Score
from fovea.eval.interval import SHOWN
from fovea.study.analysis.row import Row
from fovea.study.analysis.speed import Speed
from fovea.study.plan.cells import Cell
from fovea.study.report.table import visible

Timed = Sequence[tuple[str, Speed]]  # label of a cell, its timings
RANDOM = "RANDOM WEIGHTS: the speed is valid, the images are noise"
MISS_PROBABILITY = 1 / 7  # probability that n images show no failure
RARE_RATE = 0.01  # rates of failure below this are not mentioned
WIDENED = (
    "Intervals of scores reach as far as one more would move them, on the side of the longer tail; those of "
    "differences in decibels and of distances do not, nor does p."
)
HALVED = (
    "out of memory at a full batch; {} calls were of half a batch, for the images alone: their times count "
    "nowhere."
)
COMPILED = (
    "{} of {} repetitions met shapes that torch.compile had not seen; their times have the compiling in them."
)
SINCE_START = (
    "memory: the peak of the process since its start, which this system does not reset: it may be that of a "
    "cell made earlier."
)
UNLIKE_CARD = "§"  # marks a baseline with other settings than its model card's
STARS = (
    "* differs from dense, or a gain from none, after Holm's correction for all differences, or all gains, "
    "of the table, and its interval leaves zero out: with 95 % none of them is there by chance."
)


def notes(rows: Sequence[Row], shown: Sequence[Score], starred: bool) -> list[str]:
    """Return all notes. shown: the scores in the table. starred: whether any entry has a star."""
    flops = any(row.cost == "flops" for row in rows)
    out = [
        "s/image: of the method, without text and decoding; median over full batches [distribution-free "
        "interval, of 95 % from six batches on]; speedup: dense over this, batch by batch. Scores: value ± "
        "standard error over n images; gain: over step reduction at the same "
        f"{'FLOPs' if flops else 'speedup'}, + is better; none where step reduction has no score on either "
        "side of it."
    ]
    out += [STARS] if starred else []
    with_gain = [row.n for row in rows if any(gain.level for gain in row.gain.values())]
    out += unseen_failures(min(with_gain)) if with_gain else []
    out += [*_timed_once(rows), *measuring(rows), *floors(rows)]
    if any(row.disagrees for row in rows):
        out.append("† time and FLOPs disagree by more than 10 %.")
    out += quantised([row.cell for row in rows])
    for row in rows:
        if row.counted and abs(row.counted - 1) > 0.005:
            why = ", as torch counts none in quantised layers" * (_quantised(row.cell) != "none")
            out.append(f"{row.cell.label}: counted FLOPs are {row.counted:.3f} of the closed form{why}.")
        if row.cell.role == "diagnosis":
            out.append(
                f"{row.cell.label}: says what a method could do; it is none, and in no ranking or test."
            )
        if row.cell.role == "sibling":
            out.append(f"{row.cell.label}: another model, timed when it was loaded, not in turns with dense.")
        if row.cell.unlike_card:
            out.append(f"{UNLIKE_CARD} {row.cell.label} is not the model card's: {row.cell.unlike_card}.")
        if row.cell.off:
            out.append(f"{row.cell.label}: switched off, the baseline by another way.")
    out += score_notes(rows, shown)
    out += [f"{row.cell.label} failed: {row.failure}" for row in rows if row.failure]
    return [visible(note) for note in out]


def _timed_once(rows: Sequence[Row]) -> list[str]:
    """Return a note on gains at a time that was taken once, which have no interval."""
    gained = [row for row in rows if row.gain and row.cost == "time" and len(row.relative) == 1]
    if not gained:
        return []
    labels = ", ".join(row.cell.label for row in gained)
    return [
        f"gains of {labels}: without an interval, as their time is of a single full batch; a smaller "
        "batch=... is timed more often, and cost=flops needs no times."
    ]


def quantised(cells: Sequence[Cell]) -> list[str]:
    """Return a note per kind of quantisation on what quantised cells are compared with."""
    text = "likeness and speedup are to the dense model quantised alike; its lossless floor is what that does"
    return [f"model.quantize={kind}: {text}." for kind in sorted({*map(_quantised, cells)} - {"none"})]


def _quantised(cell: Cell) -> str:
    return cell.model.get("quantize", "none")


def score_notes(rows: Sequence[Row], shown: Sequence[Score]) -> list[str]:
    """Return why scores are unavailable, and the scores' own notes."""
    out = []
    for name in (score.name for score in shown):
        given = [r.scores[name] for r in rows if name in r.scores and r.cell.role != "dense"]
        reasons = {why_unavailable(score) for score in given} - {""}
        out += [f"{name} unavailable: {reason}" for reason in sorted(reasons)]
        notes = {row.scores[name].note for row in rows if name in row.scores} - {""}
        out += [f"{name}: {note}." for note in sorted(notes)]
    return out


def why_unavailable(score: Score) -> str:
    """Return why a score has no value, and the remedy; empty if it has one."""
    return ": ".join(filter(None, (score.unavailable, score.remedy))) if score.unavailable else ""


def unseen_failures(n: int) -> list[str]:
    """Return a note on failures so rare that n images may show none, and how the intervals allow for them.

    The rate in the note solves (1 - rate)^n = 1/7.
    """
    rate = 1 - MISS_PROBABILITY ** (1 / n)
    if rate < RARE_RATE:
        return []
    note = (
        f"Failures that no image shows: one study of {n} images in {1 / MISS_PROBABILITY:.0f} has none of "
        f"those that hit {100 * rate:.2g} % of a method's images."
    )
    return [note if n > SHOWN else f"{note} {WIDENED}"]


def measuring(rows: Sequence[Row]) -> list[str]:
    """Return notes on the timings: warm-up, excluded and disturbed calls, devices, compilation, energy."""
    timed = [(row.cell.label, row.speed) for row in rows if row.speed]
    cut = sorted({speed.cut for _, speed in timed if speed.cut})
    reasons = {speed.joules_unavailable for _, speed in timed} - {None}
    return [
        *_warm_up(rows),
        *(f"{text}." for text in cut),
        *_calls(
            timed, "repetitions_throttled", "{} of {} repetitions throttled by heat or hardware, left out."
        ),
        *_calls(timed, "halved", HALVED),
        *_devices(timed),
        *_apart(rows),
        *_elsewhen(timed),
        *([SINCE_START] if any(speed.memory_since_start for _, speed in timed) else []),
        *_calls(timed, "compiling_calls", COMPILED),
        *(f"energy unavailable: {reason}" for reason in sorted(map(str, reasons))),
    ]


def _calls(timed: Timed, kind: str, says: str) -> list[str]:
    """Return a note per cell that has such calls. says: with their number and that of all repetitions."""
    counts = [(label, getattr(speed, kind), speed.repetitions) for label, speed in timed]
    return [f"{label}: {says.format(n, of)}" for label, n, of in counts if n]


def _warm_up(rows: Sequence[Row]) -> list[str]:
    speeds = [row.speed for row in rows if row.speed]
    if not any(speed.cold_start_images for speed in speeds):
        return []
    call = "a full batch" if any(speed.cold_start_seconds is not None for speed in speeds) else "one image"
    traced = any(row.counted is not None for row in rows)  # not with traces=0
    those = ", and up to four images to count FLOPs and trace them; neither is" if traced else "; it is not"
    return [
        f"Warm-up: one call of {call} per cell, its cold start{those} among the repetitions.{_cold(rows)}"
    ]


def _cold(rows: Sequence[Row]) -> str:
    """Return a sentence on first calls slower by a tenth than a usual one, and when they pay off."""
    sentences = []
    for row in rows:
        speed = row.speed
        if (
            row.cell.role != "method"
            or speed is None
            or speed.cold_start_seconds is None
            or row.seconds is None
        ):
            continue
        extra = max(speed.cold_start_seconds, 0.0) + (speed.compile_seconds or 0.0)
        if extra > 0.1 * row.seconds.value * speed.cold_start_images:
            even = speed.break_even_images
            plural = "" if even == 1 else "s"
            after = "never pays off" if even is None else f"pays off after {even} image{plural}"
            graphs = f"{speed.compile_seconds:.2g} s of it compiling {speed.compiled_graphs} graphs"
            compiled = f" ({graphs})" if speed.compile_seconds else ""
            sentences.append(f"{row.cell.label} {extra:.2g} s{compiled}, {after}")
    return f" First calls took longer by: {'; '.join(sentences)}." if sentences else ""


def _devices(timed: Timed) -> list[str]:
    """Return notes on several kinds of device, and on a device shared with others."""
    out, devices = [], sorted({device for _, speed in timed for device in speed.devices})
    if len(devices) > 1:
        out.append(
            f"Made on {len(devices)} kinds of device, {'; '.join(devices)}: s/image is over all of them, a "
            "speedup of times on the same one."
        )
    if shared := sum(speed.repetitions_contended for _, speed in timed):
        total = sum(speed.repetitions for _, speed in timed)
        out.append(f"The device was shared with others' work in {shared} of {total} repetitions.")
    return out


def _apart(rows: Sequence[Row]) -> list[str]:
    counts = ", ".join(f"{row.cell.label} {row.apart}" for row in rows if row.apart)
    note = (
        "‡ timed calls that were compared with calls of the dense run made at another time, between "
        f"which clocks and load may have changed: {counts}."
    )
    return [note] if counts else []


def _elsewhen(timed: Timed) -> list[str]:
    labels = ", ".join(label for label, speed in timed if speed.elsewhen)
    note = (
        f"s/image of {labels}: not of the same session as that of dense, between which clocks and load may "
        "have changed; speedup is of calls of one session, except where marked ‡."
    )
    return [note] if labels else []


def floors(rows: Sequence[Row]) -> list[str]:
    """Return notes on what a change that is meant to be lossless does to each score."""
    out = []
    for row in rows:
        for change, scores in row.floor.items():
            values = [
                f"{name} {score.value:.4g}" for name, score in scores.items() if score.value is not None
            ]
            out.append(f"Lossless floor, {row.cell.label} against itself with {change}: {', '.join(values)}.")
    return out

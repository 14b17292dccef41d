"""What a reader must know of how the table was measured: warm-up, cold starts, heat, company, energy, and
what no method at all would change."""

from collections.abc import Sequence

from fovea.study.analysis.row import Row


def measuring(rows: Sequence[Row]) -> list[str]:
    out = []
    if any(row.speed is not None and row.speed.first is not None for row in rows):
        out.append(
            "Warm-up: one call of a full batch per cell, its cold start, and up to four images to count "
            f"FLOPs and trace them; neither is among the repetitions.{_cold(rows)}"
        )
    hot = [(row.cell.label, row.speed) for row in rows if row.speed and row.speed.throttled]
    out += [
        f"{label}: {speed.throttled} of {speed.repetitions} repetitions throttled by heat or hardware, left "
        "out."
        for label, speed in hot
    ]
    shared = sum(row.speed.contended for row in rows if row.speed)
    if shared:
        every = sum(row.speed.repetitions for row in rows if row.speed)
        out.append(f"The device was shared with others' work in {shared} of {every} repetitions.")
    if any(row.apart for row in rows):
        told = ", ".join(f"{row.cell.label} {row.apart}" for row in rows if row.apart)
        out.append(
            "‡ timed calls that were compared with calls of the dense run made at another time, between "
            f"which clocks and load may have changed: {told}."
        )
    reasons = {row.speed.joules_unavailable for row in rows if row.speed} - {None}
    return out + [f"energy unavailable: {reason}" for reason in sorted(map(str, reasons))]


def _cold(rows: Sequence[Row]) -> str:
    """Of methods whose first call takes a tenth longer than a usual one, or compiles: when it pays off."""
    told = []
    for row in rows:
        speed = row.speed
        if row.cell.role != "method" or speed is None or speed.first is None or row.seconds is None:
            continue
        extra = max(speed.first, 0.0) + (speed.compiling or 0.0)
        if extra > 0.1 * row.seconds.value:
            after = "never pays off" if speed.pays_off is None else f"pays off after {speed.pays_off} images"
            compiled = f" ({speed.compiling:.2g} s of it compiling)" if speed.compiling else ""
            told.append(f"{row.cell.label} {extra:.2g} s{compiled}, {after}")
    return f" First calls took longer by: {'; '.join(told)}." if told else ""


def floors(rows: Sequence[Row]) -> list[str]:
    """What a change that is meant to be lossless does to each score."""
    out = []
    for row in rows:
        for change, scores in row.floor.items():
            values = [
                f"{name} {score.value:.4g}" for name, score in scores.items() if score.value is not None
            ]
            out.append(f"Lossless floor, {row.cell.label} against itself with {change}: {', '.join(values)}.")
    return out

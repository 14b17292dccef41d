"""The table as data: every figure of every cell, with its interval."""

from collections.abc import Sequence
from typing import Any

from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row
from fovea.study.analysis.speed import Speed


def records(rows: Sequence[Row], random_weights: bool) -> list[dict[str, Any]]:
    """Every figure with its interval, n and standard error, one flat record per cell."""
    out = []
    for row in rows:
        record: dict[str, Any] = {
            "cell": row.cell.id,
            "label": row.cell.label,
            "role": row.cell.role,
            "method": row.cell.method["_target_"],
            "steps": row.cell.method.get("steps"),
            **row.cell.axes,
            "n": row.n,
            "planned": row.planned,
            "random_weights": random_weights,
            **_interval("seconds", row.seconds),
            **_interval("speedup", row.speedup),
            "flops": row.flops,
            "flops_counted_to_closed": row.counted,
            "flops_ratio": row.flops_ratio,
            "time_and_flops_disagree": row.disagrees,
            "batches_timed_apart": row.apart,
            "memory_bytes": row.memory,
            **_speed(row.speed),
        }
        for name, score in row.scores.items():
            record |= {name: score.value, f"{name}_se": score.se, f"{name}_n": score.n}
            record |= {f"{name}_unavailable": score.unavailable} | _interval(
                f"{name}_to_dense", score.difference
            )
            record |= {f"{name}_to_dense_holm": row.holm.get(name), f"{name}_front": row.front.get(name)}
            record |= _interval(f"{name}_gain", row.gain.get(name))
            record |= {
                f"{name}_gain_holm": row.gain_holm.get(name),
                f"{name}_verdict": row.verdicts.get(name),
            }
        out.append(record | {"failure": row.failure})
    return out


def _speed(speed: Speed | None) -> dict[str, Any]:
    """The rest of what the timings hold, in seconds, joules, bytes and calls."""
    if speed is None:
        return {}
    return {
        **_interval("encode_seconds", speed.encode),
        **_interval("decode_seconds", speed.decode),
        **_interval("joules", speed.joules),
        "joules_unavailable": speed.joules_unavailable,
        "memory_process_bytes": speed.memory_process,
        "repetitions": speed.repetitions,
        "repetitions_throttled": speed.throttled,
        "repetitions_contended": speed.contended,
        "cold_start_seconds": speed.first,
        "compile_seconds": speed.compiling,
        "break_even_images": speed.pays_off,
    }


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None or not interval.level:  # a single draw has no bounds
        return {name: interval and interval.value, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}

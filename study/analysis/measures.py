"""What may stand beside a printed value: the figures of a row by name, each with its interval."""

from collections.abc import Callable, Mapping

from fovea.eval import Score
from fovea.eval.interval import Interval, Worse, Z
from fovea.eval.statistics import mean_interval
from fovea.study.analysis.row import Row


def measured(row: Row, dense: Row | None, name: str) -> Interval | None:
    """A figure of `FIGURES`, or a score; None where the row has none. dense: its baseline's row."""
    return FIGURES[name](row, dense) if name in FIGURES else _score(row, name)


def _score(row: Row, name: str) -> Interval | None:
    score = row.scores.get(name)
    return None if score is None or score.value is None else of_score(score, row)


def of_score(score: Score, row: Row) -> Interval:
    """Of a score that there is, over prompts; of a figure of the whole set, from its standard error."""
    if score.value is None:
        raise ValueError(f"{score.name} has no value")
    if score.per_image is not None:
        single = score.pool == "mean" and score.facts.kind != "distance"
        worse: Worse | None = ("low" if score.better == "higher" else "high") if single else None
        return mean_interval(score.per_image, score.pool, row.prompts or None, worse=worse)
    half = Z * (score.se or 0.0)
    return Interval(score.value, score.value - half, score.value + half, 0.95 if score.se else 0.0)


def _exactly(value: float | None) -> Interval | None:
    """FLOPs and memory are counted, not drawn."""
    return None if value is None else Interval(value, value, value, 1.0)


def _end_to_end(row: Row) -> Interval | None:
    """Seconds per image with the text encoded and the image decoded."""
    if row.seconds is None or row.speed is None:
        return None
    parts = row.seconds, row.speed.encode, row.speed.decode
    value, low, high = (sum(getattr(part, at) for part in parts) for at in ("value", "low", "high"))
    return Interval(value, low, high, row.seconds.level)


def _faster(row: Row, dense: Row | None) -> Interval | None:
    """With text and decoding; the bounds are those of both times at their worst."""
    mine, whole = _end_to_end(row), dense and _end_to_end(dense)
    if mine is None or whole is None:
        return None
    if row is dense:
        return Interval(1.0, 1.0, 1.0, 1.0)
    bounds = whole.value / mine.value, whole.low / mine.high, whole.high / mine.low
    return Interval(*bounds, min(mine.level, whole.level))


def _per_second(row: Row) -> Interval | None:
    whole = _end_to_end(row)
    return whole and Interval(1 / whole.value, 1 / whole.high, 1 / whole.low, whole.level)


FIGURES: Mapping[str, Callable[[Row, Row | None], Interval | None]] = {
    "seconds": lambda row, _: _end_to_end(row),
    "images_per_second": lambda row, _: _per_second(row),
    "end_to_end_speedup": _faster,
    "speedup": lambda row, _: row.speedup,
    "flops_ratio": lambda row, _: _exactly(row.flops_ratio),
    "teraflops": lambda row, _: _exactly(row.flops and row.flops / 1e12),
    "memory_gib": lambda row, _: _exactly(row.memory and row.memory / 2**30),
}

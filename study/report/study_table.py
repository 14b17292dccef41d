"""The table of a study: one row per cell with cost, quality and gain over step reduction."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fovea.eval import Score
from fovea.eval.decisions import differs
from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row
from fovea.study.report.notes import RANDOM, UNLIKE_CARD, notes
from fovea.study.report.table import (
    COUNT,
    FACTOR,
    NOTHING,
    STAR,
    TIME,
    Column,
    Entry,
    Table,
    bounded,
    visible,
)

UP_DOWN = {"higher": "↑", "lower": "↓"}
SPEED = (  # attributes of `Speed` that are in the data only
    *("joules_unavailable", "memory_process_bytes"),
    *("repetitions", "repetitions_throttled", "repetitions_contended"),
    *("cold_start_seconds", "compile_seconds", "compiled_graphs", "break_even_images"),
)
Source = tuple[Column, Callable[[Row], Entry]]  # a column, and its entry for a row


def study_table(rows: Sequence[Row], random_weights: bool = False) -> Table:
    shown = shown_scores(rows)
    every = {name: score for row in rows for name, score in row.scores.items()}
    sources = [*_identity(rows, random_weights), *_cost()]
    sources += [source for score in every.values() for source in _score(score, score in shown)]
    sources += [source for score in every.values() for source in _gain(score, rows)]
    sources += [*_measured(rows), *_done()]
    columns = {column.key: (column, of) for column, of in sources}  # unique: an axis may be called `method`
    table = [{key: of(row) for key, (_, of) in columns.items()} for row in rows]
    starred = any(entry.mark == STAR for line in table for entry in line.values())
    warning = RANDOM if random_weights else ""
    return Table([column for column, _ in columns.values()], table, notes(rows, shown, starred), "", warning)


def shown_scores(rows: Sequence[Row]) -> list[Score]:
    """Return the scores that are shown, one of each name."""
    found = {name: score for row in rows for name, score in row.scores.items()}
    return [score for score in found.values() if not score.facts.hidden]


def star(interval: Interval | None, p: float | None) -> str:
    """Return the mark of a difference that is significant after correction, else nothing."""
    return STAR if differs(interval, p) else ""


def _identity(rows: Sequence[Row], random_weights: bool) -> Iterable[Source]:
    yield _hidden("cell", lambda row: row.cell.id)
    yield (
        Column("label", "method", left=True),
        lambda row: Entry(row.cell.label, mark=UNLIKE_CARD * bool(row.cell.unlike_card)),
    )
    yield _hidden("role", lambda row: row.cell.role)
    yield _hidden("off", lambda row: row.cell.off)
    yield _hidden("unlike_card", lambda row: row.cell.unlike_card or None)
    yield _hidden("method", lambda row: row.cell.method["_target_"])
    yield _hidden("steps", lambda row: row.cell.method.get("steps"))
    for key in dict.fromkeys(key for row in rows for key in row.cell.axes):
        yield _hidden(key, lambda row, key=key: row.cell.axes.get(key))
    yield _hidden("planned", lambda row: row.planned)
    yield _hidden("random_weights", lambda row: random_weights)


def _cost() -> Iterable[Source]:
    seconds = Column("seconds", "s/image", "interval", TIME, best="ascending", group="cost")
    speedup = Column("speedup", "speedup", "interval", FACTOR, "×", group="cost")
    ratio = Column("flops_ratio", "FLOPs ratio", digits=FACTOR, unit="×", group="cost")
    yield seconds, lambda row: bounded(row.seconds)
    yield speedup, lambda row: bounded(row.speedup, "†" * row.disagrees + "‡" * bool(row.apart))
    yield ratio, lambda row: Entry(row.flops_ratio)
    yield _hidden("flops", lambda row: row.flops)
    yield _hidden("flops_counted_to_closed", lambda row: row.counted)
    yield _hidden("time_and_flops_disagree", lambda row: row.disagrees)
    yield _hidden("batches_timed_apart", lambda row: row.apart)


def _score(score: Score, shown: bool) -> Iterable[Source]:
    name, best = score.name, "ascending" if score.better == "lower" else "descending"
    title = f"{score.heading} {UP_DOWN[score.better]}" if shown else ""

    def of(key: str) -> Callable[[Row], Any]:
        return lambda row: getattr(row.scores.get(name), key, None)

    yield Column(name, title, "error", best=best, group="quality"), lambda row: _value(row, score)
    yield _hidden(f"{name}_n", of("n"))
    yield _hidden(f"{name}_unavailable", of("unavailable"))
    yield Column(f"{name}_to_dense", spread="interval"), lambda row: bounded(of("difference")(row))
    yield _hidden(f"{name}_to_dense_holm", lambda row: row.holm.get(name))
    yield _hidden(f"{name}_front", lambda row: row.front.get(name))


def _value(row: Row, score: Score) -> Entry:
    found = row.scores.get(score.name)
    if row.cell.role == "dense" and score.facts.kind == "likeness":  # the likeness is to these very images
        return Entry(found and found.value, text="reference")
    if found is None or found.value is None:
        return Entry(text="unavailable" if row.n else NOTHING)
    return Entry(found.value, error=found.se, mark=star(found.difference, row.holm.get(score.name)))


def _gain(score: Score, rows: Sequence[Row]) -> Iterable[Source]:
    """Yield the gain over step reduction and the margin verdict of a score."""
    name, flops = score.name, any(row.cost == "flops" for row in rows)
    gained = any(name in row.gain for row in rows)
    yield (
        Column(
            f"{name}_gain",
            f"gain {score.heading}" if gained else "",
            "interval",
            signed=True,
            group=f"gain over step reduction at the same {'FLOPs' if flops else 'time'}",
            brief=False,
        ),
        lambda row: bounded(row.gain.get(name), star(row.gain.get(name), row.gain_holm.get(name))),
    )
    yield _hidden(f"{name}_gain_holm", lambda row: row.gain_holm.get(name))
    judged = f"margin {score.heading}" if any(name in row.verdicts for row in rows) else ""
    yield Column(f"{name}_verdict", judged, group="margin"), lambda row: Entry(row.verdicts.get(name))


def _measured(rows: Sequence[Row]) -> Iterable[Source]:
    """Yield the other statistics of the timings: seconds, joules, bytes and calls."""
    energy = any(row.speed is not None and row.speed.joules is not None for row in rows)
    joules = Column("joules", "J/image" if energy else "", "interval", TIME, best="ascending", brief=False)
    memory = Column(
        "memory_bytes", "memory", digits=FACTOR, unit=" GiB", scale=2**30, best="ascending", brief=False
    )
    yield Column("encode_seconds", spread="interval"), lambda row: bounded(row.speed and row.speed.encode)
    yield Column("decode_seconds", spread="interval"), lambda row: bounded(row.speed and row.speed.decode)
    yield joules, lambda row: bounded(row.speed and row.speed.joules)
    yield memory, lambda row: Entry(row.memory)
    for key in SPEED:
        yield _hidden(key, lambda row, key=key: getattr(row.speed, key, None))


def _done() -> Iterable[Source]:
    n = Column("n", "n", digits=COUNT)
    yield n, lambda row: Entry(row.n, text=None if row.n == row.planned else f"{row.n}/{row.planned}")
    yield _hidden("failure", lambda row: row.failure and visible(row.failure))


def _hidden(key: str, of: Callable[[Row], Any]) -> Source:
    """Return a column that is in the data only."""
    return Column(key), lambda row: Entry(of(row))

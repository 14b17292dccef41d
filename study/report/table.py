"""The table as text: rows with the digits that mean something."""

import math
from collections.abc import Sequence

from fovea.eval import Score
from fovea.eval.interval import Interval
from fovea.study.analysis.row import Row
from fovea.study.report.remarks import floors, measuring

RANDOM = "RANDOM WEIGHTS: the speed is valid, the images are noise"
LEVEL = 0.05  # of the whole table
STAR = (
    "* differs from dense, or a gain from none, after Holm's correction for all differences, or all gains, "
    "of the table: with 95 % none of them is there by chance."
)
UP_DOWN = {"higher": "↑", "lower": "↓"}


def headline(rows: Sequence[Row]) -> list[Score]:
    """The scores that get a column, one of each name."""
    found = {name: score for row in rows for name, score in row.scores.items()}
    return [score for score in found.values() if not score.facts.hidden]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The header and the body as text."""
    shown = [s.name for s in headline(rows)]
    gains = [name for name in shown if any(name in row.gain for row in rows)]
    judged = [name for name in shown if any(name in row.verdicts for row in rows)]
    arrows = {s.name: UP_DOWN[s.better] for s in headline(rows)}
    head = [
        "method",
        "s/image",
        "speedup",
        "FLOPs ratio",
        *(f"{short(name)} {arrows[name]}" for name in shown),
    ]
    energy = any(row.speed is not None and row.speed.joules is not None for row in rows)
    head += [*(f"gain {short(name)}" for name in gains), *(f"margin {short(name)}" for name in judged)]
    head += [*(["J/image"] if energy else []), "memory", "n"]
    return [head, *(_line(row, shown, gains, judged, energy) for row in rows)]


def short(metric: str) -> str:
    return metric.upper() if metric in ("psnr", "ssim") else metric


def _line(
    row: Row, shown: Sequence[str], gains: Sequence[str], judged: Sequence[str], energy: bool
) -> list[str]:
    speedup = _between(row.speedup, "×") + ("†" if row.disagrees else "") + ("‡" if row.apart else "")
    ratio = "–" if row.flops_ratio is None else f"{row.flops_ratio:.2f}×"
    scores = [_score(row, name) + star(row.holm.get(name)) for name in shown]
    gained = [_gain(row.gain.get(name)) + star(row.gain_holm.get(name)) for name in gains]
    gained += [row.verdicts.get(name, "–") for name in judged]
    gained += [_between(row.speed and row.speed.joules)] if energy else []
    memory = "–" if row.memory is None else f"{row.memory / 2**30:.2f} GiB"
    n = str(row.n) if row.n == row.planned else f"{row.n}/{row.planned}"
    return [row.cell.label, _between(row.seconds), speedup, ratio, *scores, *gained, memory, n]


def star(p: float | None) -> str:
    """A difference that survives the number of comparisons in the table."""
    return " *" if p is not None and p <= LEVEL else ""


def _between(interval: Interval | None, unit: str = "") -> str:
    if interval is None:
        return "–"
    digits = 2 if unit or interval.value >= 1 else 3
    if interval.low == interval.high:  # one repetition has no spread to show
        return f"{interval.value:.{digits}f}{unit}"
    low, high = (f"{x:.{digits}f}" for x in (interval.low, interval.high))
    return f"{interval.value:.{digits}f}{unit} [{low}, {high}]"


def _score(row: Row, name: str) -> str:
    score = row.scores.get(name)
    if row.cell.role == "dense" and score is not None and score.facts.kind == "likeness":
        return "reference"
    if score is None or score.value is None:
        return "unavailable" if row.n else "–"
    if score.se is None or math.isinf(score.value):
        return figure(score.value)
    return f"{figure(score.value)} ± {figure(score.se, score.value)}"


def figure(x: float, like: float | None = None) -> str:
    """Three to four digits that mean something; the error to the places of its figure."""
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    size = abs(x if like is None or math.isinf(like) else like)
    if size >= 1e6:
        return f"{x:.3g}".replace("-", "−")
    return f"{x:.{3 if size < 10 else 2 if size < 100 else 1}f}".replace("-", "−")


def _gain(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    text = f"{'+' if interval.value >= 0 else ''}{figure(interval.value)}"
    if math.isnan(interval.low):
        return text
    return f"{text} [{figure(interval.low, interval.value)}, {figure(interval.high, interval.value)}]"


def notes(rows: Sequence[Row], random_weights: bool) -> list[str]:
    """What a reader must know to read the table."""
    out = [RANDOM] if random_weights else []
    out.append(
        "s/image: of the method, without text and decoding; median over full batches [distribution-free "
        "interval, of 95 % from six batches on]; speedup: dense over this, batch by batch. Scores: value ± "
        "standard error over n images; gain: over step reduction at the same "
        f"{'FLOPs' if any(row.cost == 'flops' for row in rows) else 'speedup'}, + is better; none where step "
        "reduction has no score on either side of it."
    )
    if any(star(p) for row in rows for p in (*row.holm.values(), *row.gain_holm.values())):
        out.append(STAR)
    out += [*measuring(rows), *floors(rows)]
    if any(row.disagrees for row in rows):
        out.append("† time and FLOPs disagree by more than 10 %.")
    for row in rows:
        if row.counted and abs(row.counted - 1) > 0.005:
            out.append(f"{row.cell.label}: counted FLOPs are {row.counted:.3f} of the closed form.")
        if row.cell.off:
            out.append(f"{row.cell.label}: switched off, the baseline by another way.")
    for score in headline(rows):
        given = [r.scores[score.name] for r in rows if score.name in r.scores and r.cell.role != "dense"]
        reasons = {": ".join(filter(None, (s.unavailable, s.remedy))) for s in given if s.unavailable}
        out += [f"{score.name} unavailable: {reason}" for reason in sorted(reasons)]
        out += [f"{score.name}: {note}." for note in sorted({s.note for s in given if s.note})]
    out += [f"{row.cell.label} failed: {row.failure}" for row in rows if row.failure]
    return out

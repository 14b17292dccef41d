"""The verdict in words: what the rows allow to say, and nothing that their intervals do not carry."""

from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from fovea.study.analysis.row import Row
from fovea.study.plan.plan import Plan
from fovea.study.report.phrases import (
    above,
    cell,
    cells_or_count,
    cost,
    gains,
    joined,
    paragraph,
    score,
    settings,
    survives,
)
from fovea.study.report.table import LEVEL, headline


def verdict(plan: Plan, rows: Sequence[Row]) -> list[Markup]:
    """Two paragraphs at most: what is certain, and what is not."""
    own = settings(rows)
    if plan.random_weights:
        told = "The weights are random: the images are noise, and nothing is said of their quality."
        return [paragraph([*_costs(own), Markup(told)])]
    names = [s.name for s in headline(rows) if any(s.name in row.gain for row in own)]
    sure = [*_costs(own), *_leading(rows, own, names), *_counts(own, names)]
    unsure = [*_promising(rows, own, names), *_undecided(own, names), *_to_dense(own), *_margins(own)]
    return [paragraph(sentences) for sentences in (sure, unsure) if sentences]


def _costs(own: Sequence[Row]) -> list[Markup]:
    fast = [row for row in own if row.speedup is not None]
    if not fast:
        return [Markup("No setting of a method was timed beside dense.")]
    times = [row.speedup.value for row in fast if row.speedup]
    less = [row.flops_ratio for row in fast if row.flops_ratio]
    many = len(fast) > 1
    who = Markup("{} settings run").format(len(fast)) if many else Markup("{} runs").format(cell(fast[0]))
    cheaper = Markup(", with {} fewer FLOPs").format(_range(less)) if less else ""
    images = sorted({row.n for row in fast})
    n = str(images[0]) if len(images) == 1 else f"{images[0]} to {images[-1]}"
    plural = "s" if images[-1] > 1 else ""
    whole = "{} at {} the speed of dense{}, over {} image{}{}."
    return [Markup(whole).format(who, _range(times), cheaper, n, plural, " each" if many else "")]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}×", f"{max(values):.2f}×"
    return low if low == high else f"{low} to {high}"


def _leading(rows: Sequence[Row], own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """The best of each score that anything gains in for certain, one clause per cell."""
    best, text = _bests(own, names, survives), gains(rows)
    if not best:
        return []
    clauses = []
    for leader in {row.cell.id: row for row in best.values()}.values():
        led = [text[leader.cell.id, name] for name, row in best.items() if row is leader]
        clauses.append(Markup("{} gains most in {}").format(cell(leader), joined(led)))
    compared = sum(p is not None for row in rows for p in row.gain_holm.values())
    whole = "Over step reduction at the same {}, {}; beyond chance by Holm’s correction for all {} gains."
    return [Markup(whole).format(cost(own), Markup("; ").join(clauses), compared)]


def _counts(own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """How many settings are better and worse for certain: a best cell may be one among many losers."""
    if len(own) < 2 or not names:
        return []
    parts = []
    for name in names:
        up, down = (sum(survives(row, name, sign) for row in own) for sign in (1, -1))
        if up or down:
            verb = "is" if up == 1 else "are"
            told = "{} {} better and {} worse in {}"
            parts.append(Markup(told).format(up or "none", verb, down or "none", score(name)))
    if not parts:
        return [Markup("By Holm’s correction no setting is shown to differ from step reduction in anything.")]
    return [Markup("By that test, of {} settings {}.").format(len(own), joined(parts))]


def _promising(rows: Sequence[Row], own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """The best of each score in which a gain has an interval above zero, and yet may be chance."""
    sure, text = _bests(own, names, survives), gains(rows)
    likely = _bests(own, [name for name in names if name not in sure], above)
    if not likely:
        return []
    each = (Markup("{} in {}").format(cell(row), text[row.cell.id, name]) for name, row in likely.items())
    whole = "The interval of the gain lies above zero for {}, but among so many gains that may be chance."
    return [Markup(whole).format(joined(each))]


def _undecided(own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    told = _bests(own, names, survives).keys() | _bests(own, names, above).keys()
    names = [name for name in names if name not in told]
    every = [interval for name in names for row in own if (interval := row.gain.get(name)) is not None]
    if not every:
        return []
    bounded = [interval for interval in every if interval.level > 0]
    all_hold = all(interval.low <= 0 <= interval.high for interval in bounded)
    why = "every interval of the gain holds zero" if all_hold else "no interval of the gain lies above zero"
    why = why if bounded else "the gain has no interval"
    whole = "Whether any setting beats step reduction at the same {} in {} cannot be told: {}."
    return [Markup(whole).format(cost(own), joined(map(score, names), "or"), why)]


def _to_dense(own: Sequence[Row]) -> list[Markup]:
    names = list({name: None for row in own for name, p in row.holm.items() if p is not None})
    if not names:
        return []
    differing = {name: [row for row in own if row.holm.get(name, 1.0) <= LEVEL] for name in names}
    parts = [_differs(name, found) for name, found in differing.items() if found]
    if not parts:
        none = "By Holm’s correction none is shown to differ from the dense images in {}, nor to equal them."
        return [Markup(none).format(joined(map(score, names), "or"))]
    some = "From the dense images, by Holm’s correction, {}; of the others it cannot be told."
    return [Markup(some).format(joined(parts))]


def _differs(name: str, found: Sequence[Row]) -> Markup:
    verb = "differs" if len(found) == 1 else "differ"
    return Markup("{} {} in {}").format(cells_or_count(found), verb, score(name))


def _margins(own: Sequence[Row]) -> list[Markup]:
    """Of studies that set a margin: how many settings keep to it for certain."""
    out = []
    for name in {name: None for row in own for name in row.verdicts}:
        judged = [row.verdicts[name] for row in own if name in row.verdicts]
        counts = [judged.count(v) for v in ("non-inferior", "inferior", "undecided")]
        whole = "Within the margin set for {} for certain: {} of {} settings; beyond it {}, undecided {}."
        out.append(Markup(whole).format(score(name), counts[0], len(judged), *counts[1:]))
    return out


def _bests(own: Sequence[Row], names: Iterable[str], holds: Callable[[Row, str], bool]) -> dict[str, Row]:
    """Per score the cell of the largest gain among those that hold; nothing where none does."""
    found = {name: [row for row in own if holds(row, name)] for name in names}
    return {name: max(held, key=lambda row: row.gain[name].value) for name, held in found.items() if held}

"""The verdict in words: only what the intervals support, cautions, and what is missing and why.

User-supplied text is escaped.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from markupsafe import Markup

from fovea.eval.decisions import differs
from fovea.study.analysis.contrasts import SIBLING, of_rows
from fovea.study.analysis.row import Row
from fovea.study.plan.plan import Plan
from fovea.study.report.notes import why_unavailable
from fovea.study.report.study_table import shown_scores
from fovea.study.report.table import Column, bounded, visible

MAX_NAMED = 3  # cells that a sentence names at most; more are counted
GAIN = Column("gain", spread="interval", signed=True)
AFTER_THE_FACT = (
    "The best are picked after the fact: an interval of 95 % is that of a cell named beforehand, and "
    "flatters the best of several."
)


def verdict(plan: Plan, rows: Sequence[Row]) -> list[Markup]:
    """Return at most two paragraphs: what is certain, and what is not."""
    methods = settings(rows)
    if plan.random_weights:
        sentence = "The weights are random: the images are noise, and nothing is said of their quality."
        return [paragraph([*_costs(methods), Markup(sentence)])]
    names = [s.name for s in shown_scores(rows) if any(s.name in row.gain for row in methods)]
    leaders, counts = _leaders(rows, methods, names), _counts(methods, names)
    certain = [*_costs(methods), *leaders, *counts, *_siblings(rows)]
    possible, undecided = _possible_gains(methods, names), _undecided(methods, names)
    uncertain = [*possible, *undecided, *_to_dense(methods), *_margins(methods)]
    return [paragraph(sentences) for sentences in (certain, uncertain) if sentences]


def _costs(methods: Sequence[Row]) -> list[Markup]:
    fast = [row for row in methods if row.speedup is not None]
    if not fast:
        return [Markup("No setting of a method was timed beside dense.")]
    times = [row.speedup.value for row in fast if row.speedup]
    less = [row.flops_ratio for row in fast if row.flops_ratio]
    many = len(fast) > 1
    who = Markup("{} settings run").format(len(fast)) if many else Markup("{} runs").format(cell(fast[0]))
    fewer = "{} fewer FLOPs" if min(less, default=1) >= 1 else "a FLOPs ratio of {}"  # below 1: more FLOPs
    cheaper = Markup(f", with {fewer}").format(_range(less)) if less else ""
    images = sorted({row.n for row in fast})
    n = str(images[0]) if len(images) == 1 else f"{images[0]} to {images[-1]}"
    plural = "s" if images[-1] > 1 else ""
    sentence = "{} at {} the speed of dense{}, over {} image{}{}."
    return [Markup(sentence).format(who, _range(times), cheaper, n, plural, " each" if many else "")]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}×", f"{max(values):.2f}×"
    return low if low == high else f"{low} to {high}"


def _leaders(rows: Sequence[Row], methods: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """Name the cell with the largest certain gain in each score, with one clause per cell."""
    best = _best(methods, names, survives)
    if not best:
        return []
    clauses = []
    for leader in {row.cell.id: row for row in best.values()}.values():
        led = [gain(leader, name) for name, row in best.items() if row is leader]
        clauses.append(Markup("{} gains most in {}").format(cell(leader), joined(led)))
    compared = sum(p is not None for row in rows for p in row.gain_holm.values())
    sentence = "Over step reduction at the same {}, {}; beyond chance by Holm’s correction for all {} gains."
    return [Markup(sentence).format(cost(methods), Markup("; ").join(clauses), compared)]


def _counts(methods: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """Count the settings that are certainly better or worse: the best cell may be one among many losers."""
    if len(methods) < 2 or not names:
        return []
    parts = []
    for name in names:
        up, down = (sum(survives(row, name, sign) for row in methods) for sign in (1, -1))
        if up or down:
            verb = "is" if up == 1 else "are"
            sentence = "{} {} better and {} worse in {}"
            parts.append(Markup(sentence).format(up or "none", verb, down or "none", score(methods, name)))
    if not parts:
        return [Markup("By Holm’s correction no setting is shown to differ from step reduction in anything.")]
    sentence = "Against step reduction, by Holm’s correction, of {} settings {}."
    return [Markup(sentence).format(len(methods), joined(parts))]


def _siblings(rows: Sequence[Row]) -> list[Markup]:
    """Compare the methods with sibling models (other models with few steps) that cost no more."""
    siblings, out = [row for row in rows if row.cell.role == "sibling" and row.n], []
    pairs = [pair for pair in of_rows(rows, None) if pair.question == SIBLING] if siblings else []
    for sibling in siblings:
        compared = [pair for pair in pairs if pair.control == sibling.cell.label]
        worse = [pair for pair in compared if pair.verdict == "worse"]
        names = {pair.cell for pair in worse or compared}
        who = cells_or_count([row for row in rows if row.cell.label in names]) if names else ""
        if worse:
            lost = dict.fromkeys(pair.score for pair in worse)
            sentence = "At no higher cost {} is better, beyond chance, than {} in {}."
            out.append(Markup(sentence).format(cell(sibling), who, joined(scores(rows, lost))))
        elif compared:
            sentence = "Nothing is shown to lose to {}, which costs no more than {}."
            out.append(Markup(sentence).format(cell(sibling), who))
        else:
            out.append(Markup("{} costs more than any setting.").format(cell(sibling)))
    return out


def _possible_gains(methods: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """Name the best cell of each score whose gain has an interval above zero but is not certain."""
    certain = _best(methods, names, survives)
    likely = _best(methods, [name for name in names if name not in certain], above_zero)
    if not likely:
        return []
    parts = (Markup("{} in {}").format(cell(row), gain(row, name)) for name, row in likely.items())
    sentence = "The interval of the gain lies above zero for {}, but among so many gains that may be chance."
    return [Markup(sentence).format(joined(parts))]


def _undecided(methods: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """Say in which scores no gain has an interval above zero."""
    names = [n for n in names if not any(survives(row, n) or above_zero(row, n) for row in methods)]
    intervals = [row.gain[name] for name in names for row in methods if name in row.gain]
    if not intervals:
        return []
    with_bounds = [interval for interval in intervals if interval.level > 0]
    if not with_bounds:
        why = "the gain has no interval"
    elif all(interval.low <= 0 <= interval.high for interval in with_bounds):
        why = "every interval of the gain holds zero"
    else:
        why = "no interval of the gain lies above zero"
    sentence = "Whether any setting beats step reduction at the same {} in {} cannot be told: {}."
    return [Markup(sentence).format(cost(methods), joined(scores(methods, names), "or"), why)]


def _to_dense(methods: Sequence[Row]) -> list[Markup]:
    names = dict.fromkeys(name for row in methods for name, p in row.holm.items() if p is not None)
    if not names:
        return []
    differing = {
        name: [row for row in methods if differs(row.scores[name].difference, row.holm.get(name))]
        for name in names
    }
    parts = [_differ_clause(name, found) for name, found in differing.items() if found]
    if not parts:
        none = "By Holm’s correction none is shown to differ from the dense images in {}, nor to equal them."
        return [Markup(none).format(joined(scores(methods, names), "or"))]
    some = "From the dense images, by Holm’s correction, {}; of the others it cannot be told."
    return [Markup(some).format(joined(parts))]


def _differ_clause(name: str, found: Sequence[Row]) -> Markup:
    verb = "differs" if len(found) == 1 else "differ"
    return Markup("{} {} in {}").format(cells_or_count(found), verb, score(found, name))


def _margins(methods: Sequence[Row]) -> list[Markup]:
    """Count the settings within, beyond and undecided about each margin that the study sets."""
    out = []
    for name in dict.fromkeys(name for row in methods for name in row.verdicts):
        verdicts = [row.verdicts[name] for row in methods if name in row.verdicts]
        counts = [verdicts.count(v) for v in ("non-inferior", "inferior", "undecided")]
        sentence = "Within the margin set for {} for certain: {} of {} settings; beyond it {}, undecided {}."
        out.append(Markup(sentence).format(score(methods, name), counts[0], len(verdicts), *counts[1:]))
    return out


def _best(methods: Sequence[Row], names: Iterable[str], passes: Callable[[Row, str], bool]) -> dict[str, Row]:
    """Return, by score, the cell of the largest gain among those that pass the test, if any does."""
    found = {name: [row for row in methods if passes(row, name)] for name in names}
    return {name: max(best, key=lambda row: row.gain[name].value) for name, best in found.items() if best}


def cautions(rows: Sequence[Row]) -> list[Markup]:
    """Return sentences on what to keep in mind, and on what failed or is unavailable."""
    methods = settings(rows)
    on_gains = [*_caution(methods, rows), *_without_gain(methods, rows)]
    return [*_unlike_card(rows), *on_gains, *_failed(rows), *_unavailable(rows)]


def _unlike_card(rows: Sequence[Row]) -> list[Markup]:
    """Warn of baselines with other settings than their model card's."""
    sentence = "{} is not the model card’s ({}): what is faster than it need not be faster than the model is."
    return [Markup(sentence).format(cell(row), row.cell.unlike_card) for row in rows if row.cell.unlike_card]


def _caution(methods: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    named = any(survives(row, name) or above_zero(row, name) for row in methods for name in row.gain)
    out = [Markup(AFTER_THE_FACT)] if named and len(methods) > 1 else []
    likenesses = [s.name for s in shown_scores(rows) if s.facts.kind == "likeness"]
    present = [name for name in likenesses if any(_has_value(row, name) for row in methods)]
    if present:
        says = Markup("{} {}").format(joined(scores(rows, present)), "says" if len(present) == 1 else "say")
        sentence = "{} how near an image is to the dense one of the same seed, not how good it is."
        out.append(Markup(sentence).format(says))
    return out


def _has_value(row: Row, name: str) -> bool:
    found = row.scores.get(name)
    return found is not None and found.value is not None


def _without_gain(methods: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    """Name cells without gain because step reduction has no cells on both sides of their cost."""
    ungained = [
        row
        for row in methods
        if row.cost_ratio and not row.gain and any(_has_value(row, n) for n in row.scores)
    ]
    if not ungained:
        return []
    if not any(row.cell.role == "steps" and row.n for row in rows):
        return [Markup("There is no step reduction in this study, hence no gain over it.")]
    sentence = "No gain is given for {}: step reduction has no cells on both sides of that cost."
    return [Markup(sentence).format(cells_or_count(ungained))]


def _failed(rows: Sequence[Row]) -> list[Markup]:
    """Name failed cells, including incomplete ones."""
    failed = [row for row in rows if row.failure]
    who = cells_or_count(failed) if len(failed) <= MAX_NAMED else Markup("see the failures")
    sentence = Markup("{} of {} cells failed: {}.").format(len(failed), len(rows), who)
    return [sentence] if failed else []


def _unavailable(rows: Sequence[Row]) -> list[Markup]:
    """Explain unavailable scores, with one sentence per reason."""
    shown, found = {s.name for s in shown_scores(rows)}, {}
    for row in rows:
        for s in row.scores.values():
            why = why_unavailable(s)
            if why and s.name in shown and row.cell.role != "dense":
                found.setdefault(visible(why).rstrip("."), {})[s.name] = None
    sentence = "{} {} unavailable: {}."
    return [
        Markup(sentence).format(joined(scores(rows, names)), "is" if len(names) == 1 else "are", why)
        for why, names in found.items()
    ]


def settings(rows: Sequence[Row]) -> list[Row]:
    """Return the method's cells that are switched on and have images."""
    return [row for row in rows if row.cell.role == "method" and row.n and not row.cell.off]


def cost(rows: Sequence[Row]) -> Literal["time", "FLOPs"]:
    return "FLOPs" if any(row.cost == "flops" for row in rows) else "time"


def survives(row: Row, name: str, sign: int = 1) -> bool:
    """True if a gain (for sign -1 a loss) is significant after correction for all gains of the table."""
    interval = row.gain.get(name)
    return interval is not None and differs(interval, row.gain_holm.get(name)) and interval.value * sign > 0


def above_zero(row: Row, name: str) -> bool:
    """True if the interval of a gain lies above zero."""
    interval = row.gain.get(name)
    return interval is not None and interval.level > 0 and interval.low > 0


def cell(row: Row) -> Markup:
    return Markup("<b>{}</b>").format(visible(row.cell.label))


def cells_or_count(rows: Sequence[Row]) -> Markup:
    return joined(map(cell, rows)) if len(rows) <= MAX_NAMED else Markup("{} settings").format(len(rows))


def score(rows: Sequence[Row], name: str) -> Markup:
    """Return the table's heading of a score."""
    called = next((row.scores[name].heading for row in rows if name in row.scores), name)
    return Markup('<span class="score">{}</span>').format(called)


def scores(rows: Sequence[Row], names: Iterable[str]) -> list[Markup]:
    return [score(rows, name) for name in names]


def gain(row: Row, name: str) -> Markup:
    """Return `PSNR (+4.653 [3.396, 5.930])`, with the digits of the table."""
    entry = bounded(row.gain.get(name))
    return Markup("{} ({})").format(score([row], name), GAIN.text(entry))


def joined(parts: Iterable[str], last: str = "and") -> Markup:
    """Join as `a`, `a and b` or `a, b and c`."""
    listed = list(parts)
    if len(listed) < 2:
        return Markup("").join(listed)
    return Markup("{} {} {}").format(Markup(", ").join(listed[:-1]), last, listed[-1])


def paragraph(sentences: Sequence[Markup]) -> Markup:
    return Markup(" ").join(sentences)

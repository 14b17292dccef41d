"""The verdict in words: what the rows allow to say, and nothing that their intervals do not carry; what to
keep in mind beside it; what is missing, and why. What a user wrote is escaped."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from markupsafe import Markup

from fovea.eval.decisions import differs
from fovea.study.analysis.contrasts import SIBLING, of_rows
from fovea.study.analysis.row import Row
from fovea.study.plan.plan import Plan
from fovea.study.report.study_table import headline
from fovea.study.report.table import Column, bounded, visible

NAMED = 3  # cells that a sentence names before it counts them
GAIN = Column("gain", spread="interval", signed=True)
AFTER_THE_FACT = (
    "The best are picked after the fact: an interval of 95 % is that of a cell named beforehand, and "
    "flatters the best of several."
)


def verdict(plan: Plan, rows: Sequence[Row]) -> list[Markup]:
    """Two paragraphs at most: what is certain, and what is not."""
    own = settings(rows)
    if plan.random_weights:
        sentence = "The weights are random: the images are noise, and nothing is said of their quality."
        return [paragraph([*_costs(own), Markup(sentence)])]
    names = [s.name for s in headline(rows) if any(s.name in row.gain for row in own)]
    sure = [*_costs(own), *_leading(rows, own, names), *_counts(own, names), *_siblings(rows)]
    unsure = [*_promising(own, names), *_undecided(own, names), *_to_dense(own), *_margins(own)]
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
    best = _bests(own, names, survives)
    if not best:
        return []
    clauses = []
    for leader in {row.cell.id: row for row in best.values()}.values():
        led = [gain(leader, name) for name, row in best.items() if row is leader]
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
            sentence = "{} {} better and {} worse in {}"
            parts.append(Markup(sentence).format(up or "none", verb, down or "none", score(own, name)))
    if not parts:
        return [Markup("By Holm’s correction no setting is shown to differ from step reduction in anything.")]
    return [Markup("By that test, of {} settings {}.").format(len(own), joined(parts))]


def _siblings(rows: Sequence[Row]) -> list[Markup]:
    """What other models make of the prompts at no higher cost, in few steps of their own."""
    rivals, out = [row for row in rows if row.cell.role == "sibling" and row.n], []
    pairs = [pair for pair in of_rows(rows, None) if pair.why == SIBLING] if rivals else []
    for rival in rivals:
        compared = [pair for pair in pairs if pair.control == rival.cell.label]
        worse = [pair for pair in compared if pair.verdict == "worse"]
        names = {pair.cell for pair in worse or compared}
        who = cells_or_count([row for row in rows if row.cell.label in names]) if names else ""
        if worse:
            lost = list({pair.score: None for pair in worse})
            whole = "At no higher cost {} is better, beyond chance, than {} in {}."
            out.append(Markup(whole).format(cell(rival), who, joined(scores(rows, lost))))
        elif compared:
            whole = "Nothing is shown to lose to {}, which costs no more than {}."
            out.append(Markup(whole).format(cell(rival), who))
        else:
            out.append(Markup("{} costs more than any setting.").format(cell(rival)))
    return out


def _promising(own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    """The best of each score in which a gain has an interval above zero, and yet may be chance."""
    sure = _bests(own, names, survives)
    likely = _bests(own, [name for name in names if name not in sure], above)
    if not likely:
        return []
    each = (Markup("{} in {}").format(cell(row), gain(row, name)) for name, row in likely.items())
    whole = "The interval of the gain lies above zero for {}, but among so many gains that may be chance."
    return [Markup(whole).format(joined(each))]


def _undecided(own: Sequence[Row], names: Sequence[str]) -> list[Markup]:
    named = _bests(own, names, survives).keys() | _bests(own, names, above).keys()
    names = [name for name in names if name not in named]
    every = [interval for name in names for row in own if (interval := row.gain.get(name)) is not None]
    if not every:
        return []
    bounded = [interval for interval in every if interval.level > 0]
    all_hold = all(interval.low <= 0 <= interval.high for interval in bounded)
    why = "every interval of the gain holds zero" if all_hold else "no interval of the gain lies above zero"
    why = why if bounded else "the gain has no interval"
    whole = "Whether any setting beats step reduction at the same {} in {} cannot be told: {}."
    return [Markup(whole).format(cost(own), joined(scores(own, names), "or"), why)]


def _to_dense(own: Sequence[Row]) -> list[Markup]:
    names = list({name: None for row in own for name, p in row.holm.items() if p is not None})
    if not names:
        return []
    differing = {
        name: [row for row in own if differs(row.scores[name].difference, row.holm.get(name))]
        for name in names
    }
    parts = [_differs(name, found) for name, found in differing.items() if found]
    if not parts:
        none = "By Holm’s correction none is shown to differ from the dense images in {}, nor to equal them."
        return [Markup(none).format(joined(scores(own, names), "or"))]
    some = "From the dense images, by Holm’s correction, {}; of the others it cannot be told."
    return [Markup(some).format(joined(parts))]


def _differs(name: str, found: Sequence[Row]) -> Markup:
    verb = "differs" if len(found) == 1 else "differ"
    return Markup("{} {} in {}").format(cells_or_count(found), verb, score(found, name))


def _margins(own: Sequence[Row]) -> list[Markup]:
    """Of studies that set a margin: how many settings keep to it for certain."""
    out = []
    for name in {name: None for row in own for name in row.verdicts}:
        judged = [row.verdicts[name] for row in own if name in row.verdicts]
        counts = [judged.count(v) for v in ("non-inferior", "inferior", "undecided")]
        whole = "Within the margin set for {} for certain: {} of {} settings; beyond it {}, undecided {}."
        out.append(Markup(whole).format(score(own, name), counts[0], len(judged), *counts[1:]))
    return out


def _bests(own: Sequence[Row], names: Iterable[str], holds: Callable[[Row, str], bool]) -> dict[str, Row]:
    """Per score the cell of the largest gain among those that hold; nothing where none does."""
    found = {name: [row for row in own if holds(row, name)] for name in names}
    return {name: max(held, key=lambda row: row.gain[name].value) for name, held in found.items() if held}


def cautions(rows: Sequence[Row]) -> list[Markup]:
    own = settings(rows)
    return [*_unlike(rows), *_caution(own, rows), *_outside(own, rows), *_failed(rows), *_unavailable(rows)]


def _unlike(rows: Sequence[Row]) -> list[Markup]:
    """Baselines that are not their model card's: a gain over them is none over the published model."""
    whole = "{} is not the model card’s ({}): what is faster than it need not be faster than the model is."
    return [Markup(whole).format(cell(row), row.cell.unlike_card) for row in rows if row.cell.unlike_card]


def _caution(own: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    named = any(survives(row, name) or above(row, name) for row in own for name in row.gain)
    out = [Markup(AFTER_THE_FACT)] if named and len(own) > 1 else []
    likenesses = [s.name for s in headline(rows) if s.facts.kind == "likeness"]
    alike = [name for name in likenesses if any(_has(row, name) for row in own)]
    if alike:
        says = Markup("{} {}").format(joined(scores(rows, alike)), "says" if len(alike) == 1 else "say")
        whole = "{} how near an image is to the dense one of the same seed, not how good it is."
        out.append(Markup(whole).format(says))
    return out


def _has(row: Row, name: str) -> bool:
    found = row.scores.get(name)
    return found is not None and found.value is not None


def _outside(own: Sequence[Row], rows: Sequence[Row]) -> list[Markup]:
    """Cells that step reduction has nothing beside."""
    ungained = [row for row in own if row.cheaper and not row.gain and any(_has(row, n) for n in row.scores)]
    if not ungained:
        return []
    if not any(row.cell.role == "steps" and row.n for row in rows):
        return [Markup("There is no step reduction in this study, hence no gain over it.")]
    whole = "No gain is given for {}: step reduction has no cells on both sides of that cost."
    return [Markup(whole).format(cells_or_count(ungained))]


def _failed(rows: Sequence[Row]) -> list[Markup]:
    """Those that lack images are among them."""
    failed = [row for row in rows if row.failure]
    who = cells_or_count(failed) if len(failed) <= NAMED else Markup("see the failures")
    sentence = Markup("{} of {} cells failed: {}.").format(len(failed), len(rows), who)
    return [sentence] if failed else []


def _unavailable(rows: Sequence[Row]) -> list[Markup]:
    """Scores that share a reason share a sentence."""
    shown, found = {s.name for s in headline(rows)}, {}
    for row in rows:
        for s in row.scores.values():
            if s.unavailable and s.name in shown and row.cell.role != "dense":
                why = ": ".join(filter(None, (s.unavailable, s.remedy)))
                found.setdefault(visible(why).rstrip("."), {})[s.name] = None
    whole = "{} {} unavailable: {}."
    return [
        Markup(whole).format(joined(scores(rows, names)), "is" if len(names) == 1 else "are", why)
        for why, names in found.items()
    ]


def settings(rows: Sequence[Row]) -> list[Row]:
    """The method's cells, as far as they ran and are switched on."""
    return [row for row in rows if row.cell.role == "method" and row.n and not row.cell.off]


def cost(rows: Sequence[Row]) -> Literal["time", "FLOPs"]:
    return "FLOPs" if any(row.cost == "flops" for row in rows) else "time"


def survives(row: Row, name: str, sign: int = 1) -> bool:
    """Whether a gain, or for sign -1 a loss, is there beyond chance, all gains of the table considered."""
    interval = row.gain.get(name)
    return interval is not None and differs(interval, row.gain_holm.get(name)) and interval.value * sign > 0


def above(row: Row, name: str) -> bool:
    """Whether the interval of a gain lies above zero."""
    interval = row.gain.get(name)
    return interval is not None and interval.level > 0 and interval.low > 0


def cell(row: Row) -> Markup:
    return Markup("<b>{}</b>").format(visible(row.cell.label))


def cells_or_count(rows: Sequence[Row]) -> Markup:
    return joined(map(cell, rows)) if len(rows) <= NAMED else Markup("{} settings").format(len(rows))


def score(rows: Sequence[Row], name: str) -> Markup:
    """What the table calls it."""
    called = next((row.scores[name].heading for row in rows if name in row.scores), name)
    return Markup('<span class="score">{}</span>').format(called)


def scores(rows: Sequence[Row], names: Iterable[str]) -> list[Markup]:
    return [score(rows, name) for name in names]


def gain(row: Row, name: str) -> Markup:
    """`PSNR (+4.653 [3.396, 5.930])`, in the digits of the table."""
    entry = bounded(row.gain.get(name))
    return Markup("{} ({})").format(score([row], name), GAIN.text(entry))


def joined(parts: Iterable[str], last: str = "and") -> Markup:
    """a; a and b; a, b and c."""
    listed = list(parts)
    if len(listed) < 2:
        return Markup("").join(listed)
    return Markup("{} {} {}").format(Markup(", ").join(listed[:-1]), last, listed[-1])


def paragraph(sentences: Sequence[Markup]) -> Markup:
    return Markup(" ").join(sentences)

"""The overrides of a command line in Hydra's grammar. What cannot be read, or contradicts itself, is refused.

They name files of groups (`model=lumina`, `metric=[psnr,fid]`), set keys (`n=48`), and give the model, the
method and their keys several values (`method.ratio=0.5,0.25`): the axes of the sweep."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    OverrideType,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from fovea.study.config.errors import Refused, first_line, nearest, shown
from fovea.study.config.groups import OPTIONAL, SHORT, groups, options

GRID = "sweep.grid."
OF_CELLS = ("model", "method", "cache")  # what may differ between the cells of a study
LONGEST_WORD = 20_000  # characters of an argument; Hydra reads 100,000 in half a minute
DEEPEST = 20  # lists and nodes in one another
MOST_VALUES = 10_000  # of a key in a sweep
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
PLAIN = re.compile(r"[\w/\-+.$%*@?|: ]*", re.ASCII)  # what Hydra takes without quotes
TEXTS = ("name", "prompts", "results")
ONE_LIST = {
    "seeds": "seeds are one list, seeds=[0,1]",
    "eval": "several metrics are one list, metric=[psnr,ssim]",
    "metric": "several metrics are one list, metric=[psnr,ssim]; a variant is another file of conf/metric",
    "sweep": "a list stands in brackets, sweep.curve=[0.5,0.25]",
}


@dataclass(frozen=True)
class Overrides:
    """What a command line sets. groups: the files named. keys: what is set. axes: what takes several values,
    keys and groups."""

    groups: dict[str, Any]
    keys: dict[str, Override]
    axes: dict[str, list]


@cache
def parse(overrides: tuple[str, ...]) -> Overrides:
    """What the arguments say. Refused where two say the same or contradict one another, and where a key of
    which every cell has the same is given several values."""
    found = Overrides({}, {}, {})
    before: dict[str, Override] = {}
    for override in map(parse_one, overrides):
        key = key_of(override)
        _belongs(override)
        place = override.key_or_group if key == "model.steps" else key  # once for dense, and once as an axis
        if place in before:
            raise Refused(f"{quoted(before[place])} and {quoted(override)}: say {key} once")
        before[place] = override
        if override.is_sweep_override() or override.key_or_group.startswith(GRID):
            found.axes[key] = _values(override)
        elif key in groups():
            found.groups[key] = _names(override) if key == "metric" else override.value()
            are_options(key, found.groups[key])
        else:
            found.keys[key] = override
    return found


def parse_one(text: str) -> Override:
    """One argument. Refused, with how to write it, where Hydra cannot read it, and unread where it is too
    long."""
    if len(text) > LONGEST_WORD:
        raise Refused(f"{shown(text)}: an argument of {len(text):,} characters; allowed: {LONGEST_WORD:,}")
    if _depth(text) > DEEPEST:
        raise Refused(f"{shown(text)}: lists and nodes deeper than {DEEPEST} in one another")
    if (key := _twice(text)) is not None:
        raise Refused(f"{shown(text)}: {shown(key)} is there twice in one node")
    try:
        found = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError, OverflowError):
        raise Refused(_advice(text)) from None  # too deep, too long, or no value at all
    if _several_within(found.value()):
        raise Refused(f"{shown(text)}: several values, method.ratio=0.5,0.25, are no part of another one")
    return found


def _advice(text: str) -> str:
    """How to write what cannot be read."""
    key, equals, value = text.partition("=")
    advice = "write key=value, for example method.ratio=0.5 or seeds=[0,1]"
    odd = "".join(dict.fromkeys(PLAIN.sub("", value)))
    if equals and odd and value[0] not in "[{'\"" and value == shown(value):
        mark = '"' if "'" in value else "'"
        quoted = shlex.quote(f"{key}={mark}{value}{mark}") if mark == '"' else f"\"{key}='{value}'\""
        advice += f"; text that holds {' '.join(odd)} stands in quotes: {quoted}"
    return f"{shown(text)!r} is not understood: {advice}"


def text(argument: str) -> str:
    """The value of `key=value` as text, without the quotes in which it may stand; null is none."""
    override = parse_one(argument)
    if override.is_sweep_override():
        _belongs(override)
    value = override.value()
    return value if isinstance(value, str) else "" if value is None else argument.partition("=")[2]


def listed(argument: str) -> list[str]:
    """The values of `key=[a,b]`, of `key=a,b` or of `key=a` as text."""
    override = parse_one(argument)
    value = _values(override) if override.is_sweep_override() else override.value()
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def key_of(override: Override) -> str:
    """The key or group that it is about, by its short name."""
    key = override.key_or_group.removeprefix(GRID)
    return SHORT.get(key, key)


def quoted(override: Override) -> str:
    return shown(override.input_line)


def may_vary(key: str) -> str | None:
    """Why a key cannot differ between cells; None where it can."""
    root = key.split(".")[0]
    if root in OF_CELLS:
        return None
    hint = f"; {ONE_LIST[root]}" if root in ONE_LIST else ""
    if key in TEXTS:
        hint = f"; a value that holds a comma stands in quotes, \"{key}='a,b'\""
    return f"every cell has the same {root}, only {', '.join(OF_CELLS)} and their keys can differ{hint}"


def _belongs(override: Override) -> None:
    """Refuses what is no argument of ours, and several values of what has one."""
    key = key_of(override)
    if re.split(r"[./]", key)[0] == "hydra":
        raise Refused(
            f"{quoted(override)}: Hydra's own settings have no effect here; results=FOLDER name=NAME"
        )
    if override.package is not None:
        raise Refused(f"{quoted(override)}: a key stands in one place, without @{override.package}")
    if key.split(".")[:2] == ["eval", "metrics"]:
        raise Refused(f"{quoted(override)}: metrics are a group: metric=[psnr,ssim] metric.psnr.KEY=VALUE")
    if override.type is OverrideType.DEL:
        needed = f"; allowed: {', '.join(options(key))}" if key in groups() else ""
        raise Refused(f"{quoted(override)}: a study needs one, nothing can be left out{needed}")
    several = override.is_sweep_override() or override.key_or_group.startswith(GRID)
    if several and (why := may_vary(key)):
        raise Refused(f"{quoted(override)}: {why}")


def _values(override: Override) -> list:
    if not override.is_sweep_override():
        return _grid_values(override)
    try:
        values = [_plain(value) for value in islice(override.sweep_iterator(), MOST_VALUES + 1)]
    except (HydraException, ValueError, OverflowError) as error:
        raise Refused(f"{quoted(override)}: {first_line(error)}") from None
    if isinstance(override.value(), RangeSweep):  # of range(0.1,0.5,0.1) the third is 0.3
        values = [float(f"{value:.12g}") if isinstance(value, float) else value for value in values]
    if not values:
        raise Refused(f"{quoted(override)}: gives no value")
    if len(values) > MOST_VALUES:
        raise Refused(f"{quoted(override)}: a key takes at most {MOST_VALUES:,} values")
    if key_of(override) in groups():
        are_options(key_of(override), values)
    return values


def _grid_values(override: Override) -> list:
    """Of sweep.grid.KEY=[...]."""
    values: Any = override.value()
    if key_of(override) in groups():
        if not (isinstance(values, list) and values):
            raise Refused(f"{quoted(override)}: must be a list of at least one value")
        are_options(key_of(override), values)
    return values


def _plain(value: Any) -> Any:
    """Without Hydra's own class for what stood in quotes."""
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _names(override: Override) -> list[str]:
    """`metric=[psnr,ssim]`, `metric=psnr`, `metric=null`."""
    value = override.value()
    names = [str(name) for name in (value if isinstance(value, list) else [] if value is None else [value])]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refused(f"{quoted(override)}: {twice[0]} is there twice")
    return names


def are_options(group: str, given: Any) -> None:
    """Refused unless it is the name of one of the group's files, or a list of such."""
    allowed = options(group)
    for value in given if isinstance(given, list) else [given]:
        if value not in allowed and not (value is None and group in OPTIONAL):
            raise Refused(f"{group}={shown(value)}: no such {group}; {nearest(value, allowed)}")


def _several_within(value: Any, outermost: bool = True) -> bool:
    """Whether a range or a choice is a part of a value: Hydra reads it, and has no use for it."""
    if isinstance(value, Sweep | Glob) and not outermost:
        return True
    parts = value.list if isinstance(value, ChoiceSweep) else value
    parts = list(parts.values()) if isinstance(parts, dict) else parts
    return isinstance(parts, list) and any(_several_within(part, False) for part in parts)


def _twice(text: str) -> str | None:
    """A key that a node {key: value, ...} has twice, of which Hydra would take the last without a word."""
    within: list[set[str] | None] = []  # of a node that is open its keys, None of a list
    word, named = "", False  # what stands since the last sign; whether its entry has had its key
    for sign in QUOTED.sub(lambda quoted: re.sub(r"[\[\]{},:]", "_", quoted[0]), text):
        if sign == ":" and within and (keys := within[-1]) is not None and not named:
            if (key := word.strip().strip("'\"")) in keys:
                return key
            keys.add(key)
            named = True
        elif sign in "[{":
            within.append(set() if sign == "{" else None)
        elif sign in "]}" and within:
            within.pop()
        word = word + sign if sign not in "[]{},:" else ""
        named = named and sign not in "{,"
    return None


def _depth(text: str) -> int:
    """The most brackets that are open at once, without those in quotes."""
    plain = QUOTED.sub("", text)
    return max(accumulate((sign in "[{") - (sign in "]}") for sign in plain), default=0)

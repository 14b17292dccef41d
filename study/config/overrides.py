"""Parse the command line's overrides in Hydra's grammar, and reject what cannot be parsed or is
contradictory.

Overrides name group files (`model=lumina`, `metric=[psnr,fid]`), set keys (`n=48`), and give the model, the
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
    IntervalSweep,
    Override,
    OverrideType,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from fovea.study.config.errors import Refused, as_text, first_line, nearest
from fovea.study.config.groups import CONF, OPTIONAL, SHORT, groups, options

GRID = "sweep.grid."
VARYING_GROUPS = ("model", "method", "cache")  # groups that may differ between a study's cells
MAX_LENGTH = 20_000  # characters of an argument; Hydra needs half a minute for 100,000
MAX_DEPTH = 20  # nested lists and nodes
MAX_VALUES = 10_000  # of one key in a sweep
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
PLAIN = re.compile(r"[\w/\-+.$%*@?|: ]*", re.ASCII)  # text that Hydra accepts without quotes
TEXTS = ("name", "prompts", "results")
HYDRAS = {  # Hydra's options, and what to give instead
    ("-m", "--multirun"): "several values make the cells of one study without it, method.ratio=0.5,0.25",
    ("-c", "--cfg", "-i", "--info", "-p", "--package", "--resolve"): (
        "plan=true prints what would run; the whole config of a study is in its provenance.json"
    ),
    ("-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name"): (
        f"a file of your own belongs in its group's folder in {CONF}"
    ),
}
ONE_LIST = {
    "seeds": "give the seeds as one list, seeds=[0,1]",
    "sibling": "give several as one list, sibling=[a,b]",
    "eval": "give the metrics as one list, metric=[psnr,ssim]",
    "metric": "give the metrics as one list, metric=[psnr,ssim]; for a variant, add a file to conf/metric",
    "sweep": "write a list in brackets, sweep.curve=[0.5,0.25]",
}


@dataclass(frozen=True)
class Overrides:
    """The settings of a command line.

    groups: the files chosen.
    keys: the keys set to one value.
    axes: the keys and groups with several values.
    """

    groups: dict[str, Any]
    keys: dict[str, Override]
    axes: dict[str, list]


@cache
def parse(overrides: tuple[str, ...]) -> Overrides:
    """Parse the arguments. Raises Refused if two of them set the same key, or if a key that must be equal in
    every cell is given several values."""
    found = Overrides({}, {}, {})
    before: dict[str, Override] = {}
    for override in map(parse_one, overrides):
        key = key_of(override)
        _reject_unsupported(override)
        # model.steps may be given twice: for the dense run, and as an axis
        place = override.key_or_group if key == "model.steps" else key
        if place in before:
            raise Refused(f"{quoted(before[place])} and {quoted(override)}: both set {key}; leave one out")
        before[place] = override
        if override.is_sweep_override() or override.key_or_group.startswith(GRID):
            found.axes[key] = _values(override)
        elif key in groups():
            found.groups[key] = _metric_names(override) if key == "metric" else _name(override)
            check_options(key, found.groups[key])
        else:
            found.keys[key] = override
    return found


def parse_one(text: str) -> Override:
    """Parse one argument. Raises Refused, with the correct syntax, if Hydra cannot parse it; overlong
    arguments are rejected unparsed."""
    if len(text) > MAX_LENGTH:
        raise Refused(
            f"{as_text(text)}: an argument of {len(text):,} characters; at most {MAX_LENGTH:,} are allowed"
        )
    if _depth(text) > MAX_DEPTH:
        raise Refused(f"{as_text(text)}: lists and nodes are nested deeper than {MAX_DEPTH} levels")
    if (key := _duplicate_key(text)) is not None:
        raise Refused(f"{as_text(text)}: {as_text(key)} is set twice in one node; leave one out")
    try:
        found = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError, OverflowError):
        raise Refused(_advice(text)) from None  # nested too deeply, too long, or not a value
    if _contains_sweep(found.value()):
        raise Refused(
            f"{as_text(text)}: several values such as method.ratio=0.5,0.25 cannot be part of another value"
        )
    return found


def _advice(text: str) -> str:
    key, equals, value = text.partition("=")
    advice = "write key=value, for example method.ratio=0.5 or seeds=[0,1]"
    advice += next((f"; {why}" for names, why in HYDRAS.items() if key in names), "")
    odd = "".join(dict.fromkeys(PLAIN.sub("", value)))
    if equals and odd and value[0] not in "[{'\"" and value == as_text(value):
        mark = '"' if "'" in value else "'"
        quoted = shlex.quote(f"{key}={mark}{value}{mark}") if mark == '"' else f"\"{key}='{value}'\""
        advice += f"; put text with {' '.join(odd)} in quotes: {quoted}"
    return f"{as_text(text)!r} cannot be parsed: {advice}"


def text(argument: str) -> str:
    """Return the value of `key=value` as text without its quotes; empty for null."""
    override = parse_one(argument)
    if override.is_sweep_override():
        _reject_unsupported(override)
    value = override.value()
    return value if isinstance(value, str) else "" if value is None else argument.partition("=")[2]


def listed(argument: str) -> list[str]:
    """Return the values of `key=[a,b]`, `key=a,b` or `key=a` as text."""
    override = parse_one(argument)
    value = _values(override) if override.is_sweep_override() else override.value()
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def key_of(override: Override) -> str:
    """Return the short name of the key or group that an override sets."""
    key = override.key_or_group.removeprefix(GRID)
    return SHORT.get(key, key)


def quoted(override: Override) -> str:
    return as_text(override.input_line)


def why_fixed(key: str) -> str | None:
    """Return why a key cannot differ between cells; None if it can."""
    root = key.split(".")[0]
    if root in VARYING_GROUPS:
        return None
    hint = f"; {ONE_LIST[root]}" if root in ONE_LIST else ""
    if key in TEXTS:
        hint = f"; put a value with a comma in quotes, \"{key}='a,b'\""
    varying = ", ".join(VARYING_GROUPS)
    return f"{root} must be the same in every cell; only {varying} and their keys can differ{hint}"


def _reject_unsupported(override: Override) -> None:
    """Reject overrides that a study does not support, and several values for a key that takes one."""
    key = key_of(override)
    if re.split(r"[./]", key)[0] == "hydra":
        raise Refused(
            f"{quoted(override)}: Hydra's own settings have no effect; choose the folder with "
            "results=FOLDER name=NAME"
        )
    if override.package is not None:
        raise Refused(f"{quoted(override)}: a key has one place only; leave out @{override.package}")
    if key.split(".")[:2] == ["eval", "metrics"]:
        raise Refused(
            f"{quoted(override)}: metrics are a config group: metric=[psnr,ssim] metric.psnr.KEY=VALUE"
        )
    if override.type is OverrideType.DEL:
        needed = f"; allowed: {', '.join(options(key))}" if key in groups() else ""
        raise Refused(f"{quoted(override)}: a study needs it, so it cannot be removed{needed}")
    several = override.is_sweep_override() or override.key_or_group.startswith(GRID)
    if several and (why := why_fixed(key)):
        raise Refused(f"{quoted(override)}: {why}")


def _values(override: Override) -> list:
    if not override.is_sweep_override():
        return _grid_values(override)
    if isinstance(override.value(), IntervalSweep | Glob):
        raise Refused(f"{quoted(override)}: names no values; list them, or give range(FIRST,END,STEP)")
    try:
        values = [_plain(value) for value in islice(override.sweep_iterator(), MAX_VALUES + 1)]
    except (HydraException, ValueError, OverflowError) as error:
        raise Refused(f"{quoted(override)}: {first_line(error)}") from None
    if isinstance(override.value(), RangeSweep):  # rounded: the third of range(0.1,0.5,0.1) is 0.3
        values = [float(f"{value:.12g}") if isinstance(value, float) else value for value in values]
    if not values:
        raise Refused(f"{quoted(override)}: gives no values; at least one is needed")
    if len(values) > MAX_VALUES:
        raise Refused(f"{quoted(override)}: a key takes at most {MAX_VALUES:,} values")
    if key_of(override) in groups():
        check_options(key_of(override), values)
    return values


def _grid_values(override: Override) -> list:
    """Return the values of sweep.grid.KEY=[...]."""
    values: Any = override.value()
    if key_of(override) in groups():
        if not (isinstance(values, list) and values):
            raise Refused(f"{quoted(override)}: must be a list of at least one value")
        check_options(key_of(override), values)
    return values


def _plain(value: Any) -> Any:
    """Replace Hydra's QuotedString by plain text."""
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _metric_names(override: Override) -> list[str]:
    """Return the names in `metric=[psnr,ssim]`, `metric=psnr` or `metric=null`."""
    value = override.value()
    names = [str(name) for name in (value if isinstance(value, list) else [] if value is None else [value])]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refused(f"{quoted(override)}: {twice[0]} is listed twice; leave one out")
    return names


def _name(override: Override) -> Any:
    """Return the file chosen of a group. Raises Refused for a list: a group that can differ between cells is
    given several with commas."""
    key, value = key_of(override), override.value()
    if not isinstance(value, list):
        return value
    several = f"; for several, {key}={','.join(map(str, value))}" if len(value) > 1 else ""
    raise Refused(
        f"{quoted(override)}: takes one name{several if key in VARYING_GROUPS else ''}, without brackets"
    )


def check_options(group: str, given: Any) -> None:
    """Raise Refused unless the value is a file of the group, or a list of such files."""
    allowed = options(group)
    for value in given if isinstance(given, list) else [given]:
        if value not in allowed and not (value is None and group in OPTIONAL):
            raise Refused(f"{group}={as_text(value)}: no such {group}; {nearest(value, allowed)}")


def _contains_sweep(value: Any, outermost: bool = True) -> bool:
    """True if a range or choice is nested inside a value: Hydra parses it but cannot use it."""
    if isinstance(value, Sweep | Glob) and not outermost:
        return True
    parts = value.list if isinstance(value, ChoiceSweep) else value
    parts = list(parts.values()) if isinstance(parts, dict) else parts
    return isinstance(parts, list) and any(_contains_sweep(part, False) for part in parts)


def _duplicate_key(text: str) -> str | None:
    """Return a key that occurs twice in one node {key: value, ...}; Hydra would silently keep the last."""
    within: list[set[str] | None] = []  # per open bracket: a node's keys so far, None for a list
    word, named = "", False  # text since the last delimiter; whether the entry's key was read
    for char in QUOTED.sub(lambda quoted: re.sub(r"[\[\]{},:]", "_", quoted[0]), text):
        if char == ":" and within and (keys := within[-1]) is not None and not named:
            if (key := word.strip().strip("'\"")) in keys:
                return key
            keys.add(key)
            named = True
        elif char in "[{":
            within.append(set() if char == "{" else None)
        elif char in "]}" and within:
            within.pop()
        word = word + char if char not in "[]{},:" else ""
        named = named and char not in "{,"
    return None


def _depth(text: str) -> int:
    """Return the maximum nesting depth of brackets outside quotes."""
    plain = QUOTED.sub("", text)
    return max(accumulate((char in "[{") - (char in "]}") for char in plain), default=0)

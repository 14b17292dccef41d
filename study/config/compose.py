"""One config from conf/ and the command line, by Hydra; what does not belong in it is refused.

A command line names files of groups (`model=lumina`, `metric=[psnr,fid]`), sets keys (`n=48`), and gives the
model, the method and their keys several values (`method.ratio=0.5,0.25`): the axes of the sweep."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fovea.study.config.errors import Refused, nearest, shown

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
GRID = "sweep.grid."
NESTED = {"cache": "method/cache"}  # groups inside a group, by the name that the command line knows
SHORT = {folder: name for name, folder in NESTED.items()}
NAMED = {"prompt", "paper"}  # no choices: named by prompts=... and by an experiment
OF_CELLS = ("model", "method", "cache")  # what may differ between the cells of a study
LONGEST_WORD = 20_000  # characters of an argument; Hydra reads 100,000 in half a minute
DEEPEST = 20  # lists and nodes in one another
MOST_VALUES = 10_000  # of a key in a sweep
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
PLAIN = re.compile(r"[\w/\-+.$%*@?|: ]*", re.ASCII)  # what Hydra takes without quotes
ONE_LIST = {
    "seeds": "seeds are one list, seeds=[0,1]",
    "eval": "several metrics are one list, metric=[psnr,ssim]",
    "metric": "several metrics are one list, metric=[psnr,ssim]; a variant is another file of conf/metric",
    "sweep": "a list stands in brackets, sweep.curve=[0.5,0.25]",
}


@dataclass(frozen=True)
class Command:
    """What a command line says. groups: the files named. keys: what is set. axes: what takes several values,
    keys and groups."""

    groups: dict[str, Any]
    keys: dict[str, Override]
    axes: dict[str, list]


@dataclass(frozen=True)
class Composed:
    """config: with nothing filled in, not to be changed. picked: the file in use of each group."""

    config: DictConfig
    picked: dict[str, str]

    @property
    def model(self) -> str:
        """What the model goes by: with the scale's name where that puts another in its place."""
        name, scale = self.picked["model"], self.config.scale
        return f"{name} ({scale.name})" if name in scale.models else name


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts: the files of conf/group."""
    return sorted(path.stem for path in (CONF / NESTED.get(group, group)).glob("*.yaml"))


def groups() -> list[str]:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - NAMED
    return sorted([*folders, *NESTED])


def suite(name: str) -> list[str]:
    """The metrics of a file of conf/eval."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "eval" / f"{name}.yaml"))
    return next(item["override /metric"] for item in node["defaults"] if "override /metric" in item)


def load(
    overrides: Sequence[str] = (),
    chosen: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> Composed:
    """The config of conf/config.yaml with what the command line says.

    chosen: files of groups, at a point of the sweep, in place of those that the command line names. known:
    nodes of metrics that take the place of their files."""
    said = command(tuple(overrides))
    first = {key: values[0] for key, values in said.axes.items() if key in groups()}
    named = first | said.groups | dict(chosen or {})
    if "eval" in named:
        named = {"metric": suite(named["eval"])} | named
    config, picked = _at_scale(tuple(_choice(key, value) for key, value in named.items()))
    config = config.copy()
    files = config.get("metric") or {}
    config.metric = {name: (known or {}).get(name, node) for name, node in files.items()}
    for key, override in said.keys.items():
        _set(config, key, override)
    config.sweep.grid = _grid(config, said)
    return Composed(config, picked)


def whole(composed: Composed) -> dict[str, Any]:
    """Its config as plain data, with every ${...} filled in, but for those of the sweep's points: they are
    filled in each at its own model."""
    config = composed.config.copy()
    points = config.sweep.pop("points", [])
    found = resolved(config)
    found["sweep"]["points"] = OmegaConf.to_container(points) if OmegaConf.is_config(points) else points
    return found


def resolved(config: DictConfig) -> dict[str, Any]:
    """A node as plain data, with every ${...} filled in."""
    try:
        return {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
    except (OmegaConfBaseException, ValueError) as error:
        raise Refused(f"the config cannot be filled in: {first_line(error)}") from None


def put(config: DictConfig, key: str, value: Any) -> None:
    """Sets a key of the config. Refused where it leads nowhere."""
    _leads_somewhere(config, key, value)
    try:
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except (OmegaConfBaseException, ValueError) as error:
        raise Refused(f"{key}={shown(value)}: {first_line(error)}") from None


@cache
def command(overrides: tuple[str, ...]) -> Command:
    """What the arguments say. Refused where two say the same or contradict one another, and where a key of
    which every cell has the same is given several values."""
    found = Command({}, {}, {})
    before: dict[str, Override] = {}
    for override in map(parsed, overrides):
        key = key_of(override)
        _belongs(override)
        place = override.key_or_group if key == "model.steps" else key  # once for dense, and once as an axis
        if place in before:
            raise Refused(f"{_said(before[place])} and {_said(override)}: say {key} once")
        before[place] = override
        if override.is_sweep_override() or override.key_or_group.startswith(GRID):
            found.axes[key] = _values(override)
        elif key in groups():
            found.groups[key] = _names(override) if key == "metric" else override.value()
            _are_options(override, found.groups[key])
        else:
            found.keys[key] = override
    return found


def parsed(text: str) -> Override:
    """One argument. Refused, with how to write it, where Hydra cannot read it, and unread where it is too
    long."""
    if len(text) > LONGEST_WORD:
        raise Refused(f"{shown(text)}: an argument of {len(text):,} characters; allowed: {LONGEST_WORD:,}")
    if _depth(text) > DEEPEST:
        raise Refused(f"{shown(text)}: lists and nodes deeper than {DEEPEST} in one another")
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError, RecursionError, OverflowError):
        pass  # too deep, too long, or no value at all
    key, equals, value = text.partition("=")
    advice = "write key=value, for example method.ratio=0.5 or seeds=[0,1]"
    odd = "".join(dict.fromkeys(PLAIN.sub("", value)))
    if equals and odd and value[0] not in "[{'\"" and value == shown(value):
        mark = '"' if "'" in value else "'"
        quoted = shlex.quote(f"{key}={mark}{value}{mark}") if mark == '"' else f"\"{key}='{value}'\""
        advice += f"; text that holds {' '.join(odd)} stands in quotes: {quoted}"
    raise Refused(f"{shown(text)!r} is not understood: {advice}")


def _depth(text: str) -> int:
    """The most brackets that are open at once, without those in quotes."""
    plain = QUOTED.sub("", text)
    return max(accumulate((sign in "[{") - (sign in "]}") for sign in plain), default=0)


def text(argument: str) -> str:
    """The value of `key=value` as text, without the quotes in which it may stand; null is none."""
    override = parsed(argument)
    if override.is_sweep_override():
        _belongs(override)
    value = override.value()
    return value if isinstance(value, str) else "" if value is None else argument.partition("=")[2]


def listed(argument: str) -> list[str]:
    """The values of `key=[a,b]`, of `key=a,b` or of `key=a` as text."""
    override = parsed(argument)
    value = _values(override) if override.is_sweep_override() else override.value()
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def flat(grid: Mapping, prefix: str = "") -> dict[str, Any]:
    """{method: {ratio: [1]}} and {method.ratio: [1]} are the same grid."""
    found = {}
    for key, value in grid.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def may_vary(key: str) -> str | None:
    """Why a key cannot differ between cells; None where it can."""
    root = key.split(".")[0]
    if root in OF_CELLS:
        return None
    hint = ONE_LIST.get(root, f"a value that holds a comma stands in quotes, \"{key}='a,b'\"")
    return f"every cell has the same {root}, only {', '.join(OF_CELLS)} and their keys can differ; {hint}"


def key_of(override: Override) -> str:
    """The key or group that it is about, by its short name."""
    key = override.key_or_group.removeprefix(GRID)
    return SHORT.get(key, key)


def _said(override: Override) -> str:
    return shown(override.input_line)


def _belongs(override: Override) -> None:
    """Refuses what is no argument of ours, and several values of what has one."""
    key = key_of(override)
    if re.split(r"[./]", key)[0] == "hydra":
        raise Refused(
            f"{_said(override)}: Hydra's own settings have no effect here; results=FOLDER name=NAME"
        )
    if key.split(".")[:2] == ["eval", "metrics"]:
        raise Refused(f"{_said(override)}: metrics are a group: metric=[psnr,ssim] metric.psnr.KEY=VALUE")
    if override.type is OverrideType.DEL:
        needed = f"; allowed: {', '.join(options(key))}" if key in groups() else ""
        raise Refused(f"{_said(override)}: a study needs one, nothing can be left out{needed}")
    several = override.is_sweep_override() or override.key_or_group.startswith(GRID)
    if several and (why := may_vary(key)):
        raise Refused(f"{_said(override)}: {why}")


def _values(override: Override) -> list:
    if not override.is_sweep_override():
        return _grid_values(override)
    try:
        values = [_plain(value) for value in islice(override.sweep_iterator(), MOST_VALUES + 1)]
    except (HydraException, ValueError, OverflowError) as error:
        raise Refused(f"{_said(override)}: {first_line(error)}") from None
    if len(values) > MOST_VALUES:
        raise Refused(f"{_said(override)}: a key takes at most {MOST_VALUES:,} values")
    if key_of(override) in groups():
        _are_options(override, values)
    return values


def _grid_values(override: Override) -> list:
    """Of sweep.grid.KEY=[...]."""
    values: Any = override.value()
    if key_of(override) in groups():
        if not (isinstance(values, list) and values):
            raise Refused(f"{_said(override)}: must be a list of at least one value")
        _are_options(override, values)
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
        raise Refused(f"{_said(override)}: {twice[0]} is there twice")
    return names


def _are_options(override: Override, given: Any) -> None:
    group = key_of(override)
    allowed = options(group)
    for value in given if isinstance(given, list) else [given]:
        if value not in allowed and not (value is None and group in (*NESTED, "experiment")):
            raise Refused(f"{group}={shown(value)}: no such {group}; {nearest(value, allowed)}")


def _choice(group: str, value: Any) -> str:
    """As Hydra takes it."""
    word = "null" if value is None else f"[{','.join(value)}]" if isinstance(value, list) else value
    return f"{NESTED.get(group, group)}={word}"


@cache
def _at_scale(named: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """The config at its scale. What the scale keeps of the model that was asked for, it takes from there."""
    config, picked = _hydra(named)
    small = config.scale.models.get(picked["model"])
    if small is None:
        return config, picked
    scaled, _ = _hydra((*(line for line in named if not line.startswith("model=")), f"model={small}"))
    for key in set(config.scale.kept) & set(config.model):
        scaled.model[key] = config.model[key]
    return scaled, picked


@cache
def _hydra(named: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", list(named), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if "Could not override 'method/cache'" in str(error):
            takers = ", ".join(name for name in options("method") if _takes_a_cache(name))
            raise Refused(f"this method takes no cache; those that do: {takers}") from None
        raise Refused(f"cannot compose the config: {first_line(error)}") from None
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    picked = {
        SHORT.get(group, group): str(name) for group, name in config.pop("hydra").runtime.choices.items()
    }
    return config, {group: picked[group] for group in groups() if group in picked}


def _takes_a_cache(method: str) -> bool:
    """Whether the defaults list of a method's file has one."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "method" / f"{method}.yaml"))
    return "cache" in str(node.get("defaults"))


def _set(config: DictConfig, key: str, override: Override) -> None:
    root, *parts = key.split(".")
    if root == "metric":
        used = keys(config.metric)
        if len(parts) < 2:
            raise Refused(
                f"{_said(override)}: write metric.NAME.KEY=VALUE; which there are is metric=[psnr,ssim]"
            )
        if parts[0] not in used and parts[0] in options("metric"):
            listed = ",".join([*used, parts[0]])
            raise Refused(f"{_said(override)}: {parts[0]} is not used; add it, metric=[{listed}]")
        if parts[0] not in used:
            raise Refused(f"{_said(override)}: there is no metric {parts[0]}; {nearest(parts[0], used)}")
    put(config, key, override.value())


def _grid(config: DictConfig, said: Command) -> dict[str, list]:
    """The sweep's, with the command line's axes. A value given there is the one that runs."""
    grid = config.sweep.get("grid")
    if not isinstance(grid, DictConfig | None):
        raise Refused(
            f"sweep.grid={shown(grid)}: must be lists of values by key, sweep.grid.method.ratio=[0.5,0.25]"
        )
    fixed: dict[str, Any] = {key: [override.value()] for key, override in said.keys.items()}
    fixed |= {key: [name] for key, name in said.groups.items()}
    listed = flat(OmegaConf.to_container(grid) if grid else {})  # type: ignore[arg-type]
    return {key: fixed.get(key, values) for key, values in listed.items()} | said.axes


def _leads_somewhere(config: DictConfig, key: str, value: Any) -> None:
    """A key that a class may know but its file does not list is let through: the class refuses it, with the
    names it does know."""
    *parents, leaf = key.split(".")
    node, path = config, []
    for part in parents:
        path.append(part)
        if not isinstance(node, DictConfig) or not isinstance(node.get(part), DictConfig):
            there = f"{key}={shown(value)}: there is no {'.'.join(path)}"
            raise Refused(f"{there}; {nearest(part, keys(node))}")
        node = node[part]
    if leaf in node or (parents and not node) or "_target_" in node:
        return
    inner = [] if parents else [*groups(), *(f"eval.{name}" for name in keys(node.get("eval")))]
    raise Refused(f"{key}={shown(value)}: unknown key; {nearest(leaf, {*keys(node), *inner})}")


def keys(node: Any) -> list[str]:
    return [str(key) for key in node] if isinstance(node, DictConfig) else []

"""Compose one config from conf/ and the command line, and refuse what does not belong in it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from study.refused import Refused, nearest

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
GRID = "sweep.grid."
NESTED = {"cache": "method/cache"}  # groups inside a group, by the name that the command line knows


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts: the files of conf/group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    return sorted([path.name for path in CONF.iterdir() if path.is_dir()] + list(NESTED.values()))


def load(overrides: Sequence[str] = (), point: Mapping[str, Any] | None = None) -> DictConfig:
    """The config of conf/config.yaml with the command line's overrides, at one grid point.

    overrides: Hydra's grammar. `key=a,b` is an axis of the sweep, as is `sweep.grid.KEY=[a,b]`; `key=a` fixes
    an axis. point: config keys or groups (`method`) to values, laid over the rest."""
    point = {NESTED.get(key, key): value for key, value in (point or {}).items()}
    chosen = tuple(f"{key}={point.pop(key)}" for key in list(point) if key in groups())
    config = _composed((*overrides, *chosen))[0].copy()
    for key, value in point.items():
        _exists(config, key, value)
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def choices(overrides: Sequence[str] = ()) -> dict[str, str]:
    """Which file of each group is in use: {"model": "lumina_tiny", "method": "ras", ...}."""
    return _composed(tuple(overrides))[1]


def whole(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, with every ${...} filled in."""
    try:
        return {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
    except OmegaConfBaseException as error:
        raise Refused(f"the config cannot be filled in: {_line(error)}") from None


def resolved(config: DictConfig, key: str) -> Any:
    """One node of it."""
    return whole(config)[key]


@cache
def _composed(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    parsed = [_parsed(text) for text in overrides]
    chosen = [o for o in parsed if o.key_or_group in groups()]
    values = [o for o in parsed if o.key_or_group not in groups()]
    axes = {o.key_or_group.removeprefix(GRID): _values(o) for o in parsed if _is_axis(o)}
    for override in chosen:
        _is_option(override)
    plain = [o for o in chosen if not o.is_sweep_override()]
    given = [str(o.input_line) for o in plain]
    base = _hydra(given)
    lines = [_line_for(base, o) for o in values if not _is_axis(o)]
    config = _hydra(given + lines)
    picked = {g: str(c) for g, c in config.pop("hydra").runtime.choices.items() if g in groups()}
    fixed = {o.key_or_group: [o.value()] for o in [*plain, *values] if not _is_axis(o)}
    grid = _flat(config.sweep.get("grid") or {})
    grid = {
        key: fixed.get(key, listed) for key, listed in grid.items()
    } | axes  # a value given is the one that runs
    OmegaConf.update(config, "sweep.grid", grid, merge=False)
    return config, picked


def _hydra(overrides: list[str]) -> DictConfig:
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides, return_hydra_config=True)
            OmegaConf.set_struct(config, False)
            OmegaConf.set_readonly(config, False)
            return config
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if "Could not override 'method/cache'" in str(error):
            takers = ", ".join(m for m in options("method") if "cache" in _defaults(m))
            raise Refused(f"this method takes no cache; those that do: {takers}") from None
        raise Refused(f"cannot compose the config: {_line(error)}") from None


def _defaults(method: str) -> str:
    """The defaults list of a method's file, as text."""
    text = (CONF / "method" / f"{method}.yaml").read_text("utf-8")
    return text.partition("defaults:")[2].partition("_target_")[0]


def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    with suppress(HydraException):
        return OverridesParser.create().parse_override(f"{NESTED.get(key, key)}{equals}{value}")
    raise Refused(
        f"{text!r} is not understood: write key=value, for example method.ratio=0.5 or seeds=[0,1] "
        f"(quote values that hold spaces, commas or brackets: \"name='a, b'\")"
    )


def _is_axis(override: Override) -> bool:
    return override.is_sweep_override() or override.key_or_group.startswith(GRID)


def _values(override: Override) -> list:
    if override.is_sweep_override():
        try:
            return list(override.sweep_iterator())
        except (HydraException, ValueError) as error:
            raise Refused(f"{override.input_line}: {_line(error)}") from None
    return override.value()  # type: ignore[return-value]


def _is_option(override: Override) -> None:
    group, allowed = override.key_or_group, options(override.key_or_group)
    if override.type is OverrideType.DEL:
        raise Refused(f"~{group}: a study needs one; allowed: {', '.join(allowed)}")
    values = _values(override) if override.is_sweep_override() else [override.value()]
    name = group.split("/")[-1]
    for value in values:
        if value not in allowed and not (value is None and group in NESTED.values()):
            raise Refused(f"{name}={value}: no such {name}; {nearest(value, allowed)}")


def _line_for(config: DictConfig, override: Override) -> str:
    """The override as Hydra takes it. A key that a class may know but its YAML does not list is added; the
    class itself refuses it later, with the names it does know."""
    if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD, OverrideType.DEL):
        return override.input_line or ""
    new = _exists(config, override.key_or_group, override.value())
    return f"{'++' if new else ''}{override.input_line}"


def _exists(config: DictConfig, key: str, value: Any) -> bool:
    """Refuses a key that leads nowhere. True if it is new to a node that a class will check."""
    *parents, leaf = key.split(".")
    node, path = config, []
    for part in parents:
        path.append(part)
        if not isinstance(node, DictConfig) or not isinstance(node.get(part), DictConfig):
            raise Refused(f"{key}={value}: there is no {'.'.join(path)}; {nearest(part, _keys(node))}")
        node = node[part]
    if leaf in node or (parents and not node):
        return leaf not in node
    if "_target_" in node:
        return True
    raise Refused(
        f"{key}={value}: unknown key; {nearest(leaf, {*_keys(node), *(groups() if not parents else [])})}"
    )


def _keys(node: Any) -> list[str]:
    return [str(key) for key in node if key != "hydra"] if isinstance(node, DictConfig) else []


def _flat(grid: Mapping, prefix: str = "") -> dict[str, Any]:
    """{method: {ratio: [1]}} and {method.ratio: [1]} are the same grid."""
    flat = {}
    for key, value in grid.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

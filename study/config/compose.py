"""Compose one config from conf/ and the command line, and refuse what does not belong in it."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fovea.study.config import metrics
from fovea.study.config.errors import Refused, nearest
from fovea.study.config.override import NESTED, axes, first_line, flat, is_axis, is_new, parsed, values

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
NAMED = {"metric", "prompt", "paper"}  # no choices: named by eval.metrics=[...], prompts=..., an experiment


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts: the files of conf/group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - NAMED
    return sorted([*folders, *NESTED.values()])


def load(
    overrides: Sequence[str] = (),
    point: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> DictConfig:
    """The config of conf/config.yaml with the command line's overrides, at one grid point.

    overrides: Hydra's grammar. `key=a,b` is an axis of the sweep, as is `sweep.grid.KEY=[a,b]`; `key=a` fixes
    an axis. point: config keys or groups (`method`) to values, laid over the rest. known: nodes of metrics
    that take the place of their files."""
    point = {NESTED.get(key, key): value for key, value in (point or {}).items()}
    chosen = tuple(f"{key}={point.pop(key)}" for key in list(point) if key in groups())
    given, of_metrics = metrics.split(overrides)
    config = _composed((*given, *chosen))[0].copy()
    metrics.fill(config, of_metrics, CONF / "metric", known or {})
    for key, value in point.items():
        is_new(config, key, value)
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def choices(overrides: Sequence[str] = ()) -> dict[str, str]:
    """Which file of each group is in use: {"model": "lumina_tiny", "method": "ras", ...}."""
    return _composed(tuple(metrics.split(overrides)[0]))[1]


def whole(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, with every ${...} filled in."""
    try:
        return {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
    except OmegaConfBaseException as error:
        raise Refused(f"the config cannot be filled in: {first_line(error)}") from None


def resolved(config: DictConfig, key: str) -> Any:
    """One node of it."""
    return whole(config)[key]


def stand_in(overrides: Sequence[str], model: str) -> str:
    """What a model goes by: with the scale's name where that puts another in its place."""
    scale = _composed(tuple(metrics.split(overrides)[0]))[0].scale
    return f"{model} ({scale.name})" if model in scale.models else model


@cache
def _composed(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """The config at its scale. What the scale keeps of the model that was asked for, it takes from there."""
    config, picked = _given(overrides)
    small = config.scale.models.get(picked["model"])
    if small is None:
        return config, picked
    _is_option(parsed(f"model={small}"))
    scaled = _given((*overrides, f"model={small}"))[0]
    for key in set(config.scale.kept) & set(config.model):
        scaled.model[key] = config.model[key]
    return scaled, picked


def _given(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    all_given = [parsed(text) for text in overrides]
    chosen = [o for o in all_given if o.key_or_group in groups()]
    plain_values = [o for o in all_given if o.key_or_group not in groups()]
    swept = axes(all_given)
    for override in chosen:
        _is_option(override)
    plain = [o for o in chosen if not o.is_sweep_override()]
    given = [str(o.input_line) for o in plain]
    base = _hydra(given)
    lines = [_line_for(base, o) for o in plain_values if not is_axis(o)]
    config = _hydra(given + lines)
    picked = {g: str(c) for g, c in config.pop("hydra").runtime.choices.items() if g in groups()}
    fixed = {o.key_or_group: [o.value()] for o in [*plain, *plain_values] if not is_axis(o)}
    grid = flat(config.sweep.get("grid") or {})
    # a value given is the one that runs
    grid = {key: fixed.get(key, listed) for key, listed in grid.items()} | swept
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
        raise Refused(f"cannot compose the config: {first_line(error)}") from None


def _defaults(method: str) -> str:
    """The defaults list of a method's file, as text."""
    text = (CONF / "method" / f"{method}.yaml").read_text("utf-8")
    return text.partition("defaults:")[2].partition("_target_")[0]


def _is_option(override: Override) -> None:
    group, allowed = override.key_or_group, options(override.key_or_group)
    if override.type is OverrideType.DEL:
        raise Refused(f"~{group}: a study needs one; allowed: {', '.join(allowed)}")
    given = values(override) if override.is_sweep_override() else [override.value()]
    name = group.split("/")[-1]
    for value in given:
        if value not in allowed and not (value is None and group in NESTED.values()):
            raise Refused(f"{name}={value}: no such {name}; {nearest(value, allowed)}")


def _line_for(config: DictConfig, override: Override) -> str:
    """The override as Hydra takes it. A key that a class may know but its YAML does not list is added; the
    class itself refuses it later, with the names it does know."""
    metrics.is_no_node(override)
    if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD, OverrideType.DEL):
        return override.input_line or ""
    new = is_new(config, override.key_or_group, override.value(), groups())
    return f"{'++' if new else ''}{override.input_line}"

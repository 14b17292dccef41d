"""Compose one config with Hydra from the files of conf/ and the command line's overrides, and reject keys
that do not exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fovea.study.config.errors import Refused, as_text, first_line, nearest
from fovea.study.config.groups import CONF, NESTED, SHORT, groups, options, read_option, suite
from fovea.study.config.overrides import Overrides, check_options, parse, quoted


@dataclass(frozen=True)
class Composed:
    """A composed config.

    config: the config, with interpolations (${...}) unresolved.
    picked: the file in use of each group.
    """

    config: DictConfig
    picked: dict[str, str]

    @property
    def model(self) -> str:
        """Name of the model, with the scale's name if the scale replaces the model."""
        name, scale = self.picked["model"], self.config.scale
        return f"{name} ({scale.name})" if name in scale.models else name


def load(
    overrides: Sequence[str] = (),
    chosen: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> Composed:
    """Return the config of conf/config.yaml with the command line applied.

    chosen: group files set by a point of the sweep; they replace those on the command line.
    known: nodes of metrics that replace their files.
    """
    given = parse(tuple(overrides))
    for group, name in (chosen or {}).items():
        check_options(group, [name])
    first = {key: values[0] for key, values in given.axes.items() if key in groups()}
    named = first | given.groups | dict(chosen or {})
    if "eval" in named:
        named = {"metric": suite(named["eval"])} | named
    _check_metric_files(named.get("metric") or [])
    config, picked = _compose(named)
    files = config.get("metric") or {}
    config.metric = {name: (known or {}).get(name, node) for name, node in files.items()}
    for key, override in given.keys.items():
        _apply(config, key, override)
    config.sweep.grid = _grid(config, given)
    return Composed(config, picked)


def _check_metric_files(names: Sequence[str]) -> None:
    """Raise Refused if a file of conf/metric does not say that its place is `metric.NAME`."""
    for name in names:
        expected = f"# @package metric.{name}"
        with (CONF / "metric" / f"{name}.yaml").open(encoding="utf-8") as file:
            if file.readline().rstrip() != expected:
                raise Refused(f"conf/metric/{name}.yaml: its first line must be {expected}")


def whole(composed: Composed) -> dict[str, Any]:
    """Return the config as plain data with every ${...} resolved, except in the sweep's points, which are
    resolved later, each with its own model."""
    config = composed.config.copy()
    points = config.sweep.pop("points", [])
    found = resolved(config)
    found["sweep"]["points"] = OmegaConf.to_container(points) if OmegaConf.is_config(points) else points
    return found


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return a node as plain data with every ${...} resolved."""
    try:
        return {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
    except (OmegaConfBaseException, ValueError) as error:
        raise Refused(f"the config cannot be resolved: {first_line(error)}") from None


def set_key(config: DictConfig, key: str, value: Any) -> None:
    """Set a key of the config. Raises Refused if it does not exist."""
    _check_key(config, key, value)
    try:
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except (OmegaConfBaseException, ValueError) as error:
        raise Refused(f"{key}={as_text(value)}: {first_line(error)}") from None


def flat(grid: Mapping, prefix: str = "") -> dict[str, Any]:
    """Return the grid with dotted keys: {method: {ratio: [1]}} and {method.ratio: [1]} are the same grid."""
    found = {}
    for key, value in grid.items():
        name = f"{prefix}{key}"
        more = flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
        if both := [key for key in more if key in found]:
            raise Refused(f"sweep: {both[0]} is set twice in one point or grid; leave one out")
        found |= more
    return found


def _hydra_arguments(named: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the chosen files of groups in Hydra's syntax."""
    words = {
        group: "null" if value is None else f"[{','.join(value)}]" if isinstance(value, list) else value
        for group, value in named.items()
    }
    return tuple(f"{NESTED.get(group, group)}={word}" for group, word in words.items())


def _compose(named: Mapping[str, Any]) -> tuple[DictConfig, dict[str, str]]:
    """Compose the files of a config. The method's files are composed separately, so that a sweep over methods
    reads the others only once; not with an experiment, which may set keys of the method."""
    of_method = {key: named[key] for key in ("method", *NESTED) if key in named}
    if "method" not in of_method or named.get("experiment"):
        config, picked = _at_scale(_hydra_arguments(named))
        return config.copy(), picked
    config, picked = _at_scale(_hydra_arguments({k: v for k, v in named.items() if k not in of_method}))
    config, (own, chosen) = config.copy(), _of_method(_hydra_arguments(of_method))
    config.method = own.method
    picked = {key: name for key, name in picked.items() if key not in ("method", *NESTED)} | chosen
    return config, {key: picked[key] for key in groups() if key in picked}


@cache
def _of_method(named: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    return _hydra(tuple(f"+{line}" if line.startswith("method=") else line for line in named), None)


@cache
def _at_scale(named: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Return the config with the scale's model in place of the requested one, whose keys in scale.kept are
    preserved."""
    config, picked = _hydra(named)
    small = config.scale.models.get(picked["model"])
    if small is None:
        return config, picked
    scaled, _ = _hydra((*(line for line in named if not line.startswith("model=")), f"model={small}"))
    for key in set(config.scale.kept) & set(config.model):
        scaled.model[key] = config.model[key]
    return scaled, picked


@cache
def _hydra(named: tuple[str, ...], file: str | None = "config") -> tuple[DictConfig, dict[str, str]]:
    """Compose with Hydra. file: the file of conf/ to start from; None for no file."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(file, list(named), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if "Could not override 'method/cache'" in str(error):
            defaults = {name: str(read_option("method", name).get("defaults")) for name in options("method")}
            takers = ", ".join(name for name, listed in defaults.items() if "cache" in listed)
            raise Refused(f"this method takes no cache; those that do: {takers}") from None
        if NESTED["cache"] in " ".join(named) and "Got NoneType" in str(error):
            caches = ", ".join(options("method/cache"))
            raise Refused(f"cache=null: this method needs a cache; allowed: {caches}") from None
        raise Refused(f"cannot compose the config: {first_line(error)}") from None
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    picked = {
        SHORT.get(group, group): str(name) for group, name in config.pop("hydra").runtime.choices.items()
    }
    return config, {group: picked[group] for group in groups() if group in picked}


def _apply(config: DictConfig, key: str, override: Override) -> None:
    root, *parts = key.split(".")
    if root == "metric":
        used = keys(config.metric)
        if len(parts) < 2:
            raise Refused(
                f"{quoted(override)}: to set a metric's key write metric.NAME.KEY=VALUE, to choose metrics "
                "metric=[psnr,ssim]"
            )
        if parts[0] not in used and parts[0] in options("metric"):
            listed = ",".join([*used, parts[0]])
            raise Refused(f"{quoted(override)}: {parts[0]} is not used; add it, metric=[{listed}]")
        if parts[0] not in used:
            raise Refused(f"{quoted(override)}: there is no metric {parts[0]}; {nearest(parts[0], used)}")
    set_key(config, key, override.value())


def _grid(config: DictConfig, given: Overrides) -> dict[str, list]:
    """Return the sweep's grid with the command line's axes. A single value on the command line replaces the
    list."""
    grid = config.sweep.get("grid")
    if not isinstance(grid, DictConfig | None):
        raise Refused(
            f"sweep.grid={as_text(grid)}: must be lists of values by key, sweep.grid.method.ratio=[0.5,0.25]"
        )
    fixed: dict[str, Any] = {key: [override.value()] for key, override in given.keys.items()}
    fixed |= {key: [name] for key, name in given.groups.items()}
    listed = flat(OmegaConf.to_container(grid) if grid else {})  # type: ignore[arg-type]
    return {key: fixed.get(key, values) for key, values in listed.items()} | given.axes


def _check_key(config: DictConfig, key: str, value: Any) -> None:
    """Raise Refused if a key does not exist. A key of a node with a `_target_` passes: its class rejects
    unknown keys and lists the valid ones."""
    *parents, leaf = key.split(".")
    node, path = config, []
    for part in parents:
        path.append(part)
        if not isinstance(node, DictConfig) or not isinstance(node.get(part), DictConfig):
            place = ".".join(path)
            if part in keys(node) and place.replace(".", "/") not in SHORT:
                raise Refused(
                    f"{key}={as_text(value)}: {place} is a single value without keys; write {place}=..."
                )
            missing = f"{key}={as_text(value)}: there is no {place}"
            raise Refused(f"{missing}; {nearest(part, keys(node))}")
        node = node[part]
    if leaf in node or (parents and not node) or "_target_" in node:
        return
    inner = [] if parents else [*groups(), *(f"eval.{name}" for name in keys(node.get("eval")))]
    deeper = [] if parents else [f"{g}.{leaf}" for g in ("model", "method") if leaf in keys(node.get(g))]
    raise Refused(f"{key}={as_text(value)}: unknown key; {nearest(leaf, {*keys(node), *inner}, deeper)}")


def keys(node: Any) -> list[str]:
    return [str(key) for key in node] if isinstance(node, DictConfig) else []

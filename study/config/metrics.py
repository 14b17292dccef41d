"""Which metrics, and their keys: `eval.metrics` lists files of conf/metric, `metric.NAME.KEY=VALUE` sets one.

The node of each metric that is listed stands in the config as `metric.NAME`, whatever a suite, an experiment
or the command line has to say of the others."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, ListConfig, OmegaConf

from fovea.study.config.errors import Refused, nearest
from fovea.study.config.override import is_axis, is_new, keys, parsed

LIST = "eval.metrics"


def split(overrides: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of the command line that Hydra composes, and those that set a metric's key."""
    rest, of_metrics = [], []
    for text in overrides:
        is_ours = text.lstrip("+~").partition("=")[0].split(".")[0] == "metric"
        (of_metrics if is_ours else rest).append(text)
    return rest, of_metrics


def fill(config: DictConfig, overrides: Sequence[str], folder: Path, known: Mapping[str, Any]) -> None:
    """Makes `metric` hold the node of each metric in `eval.metrics`, with what an experiment and the command
    line set in it. known: nodes that take the place of their files in folder."""
    laid = config.get("metric") or {}
    config.metric = {name: _node(name, folder, known, laid) for name in chosen(config, folder)}
    for override in map(parsed, overrides):
        _set(config, override, folder)


def chosen(config: DictConfig, folder: Path) -> list[str]:
    """The names in `eval.metrics`, each of which has a file."""
    names = config.eval.get("metrics")
    if not isinstance(names, ListConfig | None):
        raise Refused(f"{LIST}={names}: must be a list of names, such as {LIST}=[psnr,ssim]")
    names = [str(name) for name in names or []]
    for name in names:
        if name not in _names(folder):
            raise Refused(f"{LIST}=[{name}]: no such metric; {nearest(name, _names(folder))}")
        if names.count(name) > 1:
            raise Refused(f"{LIST}=[{','.join(names)}]: {name} is there twice")
    return names


def is_no_node(override: Override) -> None:
    """`eval.metrics` is a list: refuses to look for a metric's key in it."""
    key = override.key_or_group
    if key.startswith(f"{LIST}."):
        name = key.removeprefix(f"{LIST}.")
        raise Refused(
            f"{override.input_line}: {LIST} is a list of names; say them all, {LIST}=[psnr,ssim], "
            f"and set a metric's key as metric.{name if '.' in name else f'{name}.KEY'}=VALUE"
        )


def _names(folder: Path) -> list[str]:
    return [file.stem for file in folder.glob("*.yaml")]


def _node(name: str, folder: Path, known: Mapping[str, Any], laid: Mapping[str, Any]) -> Any:
    node = OmegaConf.create(known[name]) if name in known else OmegaConf.load(folder / f"{name}.yaml")
    return OmegaConf.merge(node, laid.get(name) or {})


def _set(config: DictConfig, override: Override, folder: Path) -> None:
    key, line = override.key_or_group, override.input_line
    _, name, leaf = [*key.split(".", 2), "", ""][:3]
    if override.type is OverrideType.DEL or not leaf:
        raise Refused(f"{line}: write metric.NAME.KEY=VALUE; which metrics there are is {LIST}=[psnr,ssim]")
    if name not in config.metric:
        there = keys(config.metric)
        if name in _names(folder):
            raise Refused(f"{line}: {name} is not used; add it, {LIST}=[{','.join([*there, name])}]")
        raise Refused(f"{line}: there is no metric {name}; {nearest(name, there)}")
    if is_axis(override):
        raise Refused(f"{line}: a metric's key takes one value; a variant is another file of conf/metric")
    is_new(config, key, override.value())
    OmegaConf.update(config, key, override.value(), force_add=True)

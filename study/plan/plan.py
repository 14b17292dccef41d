"""From a config to a plan: the cells, the samples, and what will be unavailable, all checked."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.study.config.compose import choices, load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import build, check
from fovea.study.config.prompts import Sample, read, samples
from fovea.study.config.schema import Settings, Suite, Sweep
from fovea.study.plan.cells import Cell, Node, cells, checked
from fovea.study.plan.checks import is_random, labelled, obtainable, unavailable


@dataclass(frozen=True)
class Plan:
    settings: Settings
    config: Node
    name: str
    cells: list[Cell]
    samples: list[Sample]
    prompts: dict[str, Any]  # the set that the samples are of
    random_weights: bool
    unavailable: dict[str, str]  # metric -> why it will give no number

    @property
    def metrics(self) -> dict[str, Node]:
        return self.config["metric"]

    @property
    def folder(self) -> Path:
        return Path(self.settings.results) / self.name


def make(overrides: Sequence[str]) -> Plan:
    """The whole study, checked: nothing is loaded, and nothing that can be refused comes later."""
    config, picked = whole(load(overrides)), choices(overrides)
    nodes = {*picked, "metric", "paper"}
    settings: Settings = own(Settings, {key: v for key, v in config.items() if key not in nodes})
    sweep: Sweep = own(Sweep, config["sweep"], "sweep")
    own(Suite, config["eval"], "eval")
    checked(config["model"], config["method"])
    for node in ("logger", "launcher", *(["paper"] if "paper" in config else [])):
        check(config[node], node, "fovea.study")
    with _needing(config):
        prompts = read(settings.prompts)
    drawn = samples(prompts.all[: settings.n], settings.seeds)
    found = cells(overrides, sweep, settings, picked)
    if settings.versus is not None:
        labelled(settings.versus, [cell.label for cell in found])
    models = [cell.model for cell in found]
    with _needing(config):
        obtainable(models)
    return Plan(
        settings,
        config,
        settings.name or name(picked),
        found,
        drawn,
        prompts.origin,
        any(map(is_random, models)),
        unavailable(config),
    )


@contextmanager
def _needing(config: Node) -> Iterator[None]:
    """Where something is missing, all is said that an experiment needs."""
    try:
        yield
    except Refused as error:
        if "paper" not in config:
            raise
        needs = "; ".join(config["paper"]["needs"])
        raise Refused(
            f"{error}\nin full this experiment needs {needs}; scale=tiny needs none of it"
        ) from None


def name(picked: Mapping[str, str]) -> str:
    """Of the study: the experiment's, or else method-model-sweep; with the scale where that is not full."""
    cached = [picked["method/cache"]] if picked["method"] == "caching" else []
    parts = [picked["method"], *cached, picked["model"], picked["sweep"]]
    if picked["experiment"] != "None":
        parts = [picked["experiment"]]
    return "-".join([*parts, *([picked["scale"]] if picked["scale"] != "full" else [])])


def own(kind: Any, node: Mapping[str, Any], where: str = "") -> Any:
    return build(
        {"_target_": f"fovea.study.config.schema.{kind.__name__}"} | dict(node), where, "fovea.study"
    )

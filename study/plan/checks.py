"""Can it run here? Asked of weights and metrics before any work: each class knows what it needs."""

import re
from collections.abc import Iterable
from typing import Any

from fovea.study.config.errors import Refused, nearest
from fovea.study.config.instantiate import asked, check, obstacle
from fovea.study.plan import fingerprint
from fovea.study.store import read_json

Node = dict[str, Any]


def unavailable(config: Node) -> dict[str, str]:
    """Metrics that lack their weights, and why; refused if eval.strict, or if two give one score."""
    metrics = config["metric"]
    found = {name: obstacle(node, f"metric.{name}", "fovea.eval") for name, node in metrics.items()}
    _distinct(metrics, config["eval"].get("margin") or {})
    missing = {name: keyed(name, why) for name, why in found.items() if why is not None}
    if missing and config["eval"].get("strict"):
        lines = [f"metric.{name}: {why} (eval.strict=true)" for name, why in missing.items()]
        raise Refused("\n".join(lines))
    return missing


def keyed(metric: str, text: str) -> str:
    """A remedy with the keys of the command line: `weights=FILE` is `metric.NAME.weights=FILE`."""
    return re.sub(r"`(?=[a-z_]+(\.[a-z_]+)*=)", f"`metric.{metric}.", text)


def _distinct(metrics: dict[str, Node], margin: dict[str, float]) -> None:
    """Each score is given by one metric, and each margin is of a score that is given."""
    giving: dict[str, str] = {}
    for name, node in metrics.items():
        for score in asked(node, f"metric.{name}", "fovea.eval", lambda made: list(made.scores)):
            if score in giving:
                raise Refused(f"eval.metrics: {giving[score]} and {name} both give {score}; leave one out")
            giving[score] = name
    for score in margin:
        if score not in giving and score not in (known := {name.partition("[")[0] for name in giving}):
            raise Refused(f"eval.margin.{score}: no metric gives such a score; {nearest(score, known)}")


def obtainable(models: Iterable[Node]) -> None:
    """The weights of every model can be had, or the ways out are named."""
    for model in {fingerprint.digest(model): model for model in models}.values():
        why = obstacle(model | {"device": fingerprint.device(model["device"])}, "model", "fovea.models")
        if why is not None:
            raise Refused(why)


def is_random(model: Node) -> bool:
    """Built without training, or saved by one who says so of the checkpoint."""
    folder = check(model, "model", "fovea.models").folder
    index = read_json(folder / "model_index.json") if folder else None
    return "random" in (model["weights"], (index or {}).get("weights"))


def labelled(label: str, labels: Iterable[str]) -> None:
    """Refused unless a cell is called so."""
    if label not in (known := list(labels)):
        raise Refused(f"versus={label}: no cell of this study; {nearest(label, known)}")

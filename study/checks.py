"""Can it run here? Asked of weights and metrics before any work: each class knows what it needs."""

from collections.abc import Iterable
from typing import Any

from study import identity
from study.build import check, obstacle
from study.refused import Refused
from study.store import read_json

Node = dict[str, Any]


def unavailable(suite: Node) -> dict[str, str]:
    """Metrics that lack their weights, and why; refused if eval.strict."""
    metrics = suite.get("metrics") or {}
    found = {name: obstacle(node, f"eval.metrics.{name}", "eval") for name, node in metrics.items()}
    missing = {name: why for name, why in found.items() if why is not None}
    if missing and suite.get("strict"):
        lines = [f"eval.metrics.{name}: {why} (eval.strict=true)" for name, why in missing.items()]
        raise Refused("\n".join(lines))
    return missing


def obtainable(models: Iterable[Node]) -> None:
    """The weights of every model can be had, or the ways out are named."""
    for model in {identity.digest(model): model for model in models}.values():
        why = obstacle(model | {"device": identity.device(model["device"])}, "model", "models")
        if why is not None:
            raise Refused(why)


def is_random(model: Node) -> bool:
    """Built without training, or saved by one who says so of the checkpoint."""
    folder = check(model, "model", "models").folder
    index = read_json(folder / "model_index.json") if folder else None
    return "random" in (model["weights"], (index or {}).get("weights"))

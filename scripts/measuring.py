"""What the commands that measure a model read from a command line, and how they end."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fovea.models.checkpoint import Checkpoint
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample, read, samples
from fovea.study.plan.plan import is_random, obtainable


class Entry(NamedTuple):
    """Of a model's file, under a method's name. remark: what was measured, a comment."""

    settings: dict[str, Any]
    remark: str = ""


def written(entries: Mapping[str, Entry]) -> str:
    """YAML, each remark above its entry."""
    lines = []
    for name, (settings, remark) in entries.items():
        lines += [f"# {remark}\n"] if remark else []
        lines.append(yaml.safe_dump({name: settings}, default_flow_style=None, sort_keys=False, width=110))
    return "".join(lines)


def command(name: str, arguments: Sequence[str], config: Mapping[str, Any]) -> str:
    """A command line that says which images it measures, whatever the defaults become."""
    rest = [a for a in arguments if not a.startswith(("n=", "seeds="))]
    shown = [f"n={config['n']}", f"seeds={config['seeds']}".replace(" ", "")]
    return " ".join([f"python -m scripts.{name}", *rest, *shown])


def source(command: str, drawn: Sequence[Sample], steps: int) -> str:
    """What measured all that follows it in the file, a comment."""
    return f"# measured by `{command}`: {len(drawn)} images of {steps} steps\n"


def few(arguments: Sequence[str]) -> list[str]:
    """n=8, unless another n is given."""
    return [] if any(a.startswith("n=") for a in arguments) else ["n=8"]


def chosen(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Sample], Checkpoint]:
    """The model's settings without what its file hints at for methods, what is drawn, and the checkpoint.
    Raises Refused, before anything is loaded."""
    node = {key: value for key, value in config["model"].items() if not isinstance(value, Mapping)}
    drawn = samples(read(config["prompts"]).all[: config["n"]], config["seeds"])
    checkpoint = instantiate(node, "model", "fovea.models")
    obtainable([node])
    if is_random(node):
        raise Refused("model.weights=random: weights without training have nothing to measure")
    return node, drawn, checkpoint


def program(measured: Callable[[Sequence[str]], str], arguments: Sequence[str]) -> int:
    """Prints what is measured; the exit code."""
    try:
        print(measured(arguments))
    except Refused as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    return 0

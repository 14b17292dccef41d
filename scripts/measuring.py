"""Shared by the commands that measure a model: reading the command line, writing YAML, exit codes."""

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
    """A method's settings in a model's file. remark: what was measured, written as a comment."""

    settings: dict[str, Any]
    remark: str = ""


def to_yaml(entries: Mapping[str, Entry]) -> str:
    """Return the entries as YAML, each remark as a comment above its entry."""
    lines = []
    for name, (settings, remark) in entries.items():
        lines += [f"# {remark}\n"] if remark else []
        lines.append(yaml.safe_dump({name: settings}, default_flow_style=None, sort_keys=False, width=110))
    return "".join(lines)


def command_line(name: str, arguments: Sequence[str], config: Mapping[str, Any]) -> str:
    """Return the command line with n and seeds explicit, so that it stays valid if the defaults change."""
    rest = [a for a in arguments if not a.startswith(("n=", "seeds="))]
    explicit = [f"n={config['n']}", f"seeds={config['seeds']}".replace(" ", "")]
    return " ".join([f"python -m scripts.{name}", *rest, *explicit])


def measured_by(command: str, drawn: Sequence[Sample], steps: int) -> str:
    """Return the comment that names the command and the images behind the entries below it."""
    return f"# measured by `{command}`: {len(drawn)} images of {steps} steps\n"


def default_n(arguments: Sequence[str]) -> list[str]:
    """Return the override n=8, unless the arguments set n."""
    return [] if any(a.startswith("n=") for a in arguments) else ["n=8"]


def model_and_samples(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Sample], Checkpoint]:
    """Return the model's settings without its entries for methods, the samples, and the checkpoint. Raises
    Refused before anything is loaded."""
    node = {key: value for key, value in config["model"].items() if not isinstance(value, Mapping)}
    drawn = samples(read(config["prompts"]).all[: config["n"]], config["seeds"])
    checkpoint = instantiate(node, "model", "fovea.models")
    obtainable([node])
    if is_random(node):
        raise Refused("model.weights=random: weights without training have nothing to measure")
    return node, drawn, checkpoint


def run_command(measure: Callable[[Sequence[str]], str], arguments: Sequence[str]) -> int:
    """Run a command, print its result, and return the exit code."""
    try:
        print(measure(arguments))
    except Refused as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    return 0

"""list=KIND: list the available options, and what is usable on this machine; and the text of --help."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import takewhile
from typing import Any, NamedTuple

from hydra.utils import get_class

from fovea.study.commands.command import Command
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused, nearest
from fovea.study.config.groups import CONF, groups, options, read_option, suite
from fovea.study.config.instantiate import instantiate, obstacle
from fovea.study.plan.fingerprint import device
from fovea.study.plan.plan import remedied
from fovea.study.report.terminal import print_lines, print_text, terminal
from fovea.study.streams import print_summary

Record = dict[str, Any]
LONG = 120  # characters above which a description is cut to its first sentence


class Kind(NamedTuple):
    """A kind of options.

    group: their folder in conf/.
    use: how one is chosen on the command line.
    facts: returns what else there is to tell of each, from their names and the rest of the command line.
    """

    group: str
    use: str
    facts: Callable[[list[str], list[str]], list[Record]] | None = None


def run(command: Command) -> int:
    if command.value == "studies":
        from fovea.study.commands.show import list_studies

        return list_studies(command)
    if command.value not in KINDS:
        raise Refused(f"{command.text}: no such list; {nearest(command.value, (*KINDS, 'studies'))}")
    given = command.allow(*(["metric"] if command.value == "metrics" else []))
    group, use, facts = KINDS[command.value]
    names = options(group)
    rows: list[Record] = [{"name": name, "what": head(group, name)} for name in names]
    if facts:
        rows = [row | more for row, more in zip(rows, facts(names, given), strict=True)]
    console = terminal(120)
    print_lines([["name", ""], *([row["name"], _text(row)] for row in rows)], console, left=2)
    print_text(f"use: {use}", console, "dim")
    print_summary({"list": command.value, "names": names, "rows": rows})
    return 0


def _text(row: Record) -> str:
    """Return the description of an entry, followed by the other facts on a line each."""
    more = [f"{key}: {_line(value)}" for key, value in row.items() if key not in ("name", "what")]
    return "\n".join([row["what"], *more])


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_short(inner)}" for key, inner in value.items())
    return str(value)


def _short(value: Any) -> str:
    """Format a value as it is typed: null, true, [1, 2]."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def help_text() -> str:
    """Return the text of --help: the groups with their options, the items of lists, the plain keys."""
    lines = [f"  {group + '=':12}{' | '.join(options(group)) or '(none yet)'}" for group in groups()]
    named = [
        f"list=KIND tells more of each: {', '.join((*KINDS, 'studies'))}",
        f"metric=[...], each with its keys as metric.NAME.KEY=VALUE: {', '.join(options('metric'))}",
        f"prompts=, or a file: {', '.join(options('prompt'))}",
    ]
    return "\n".join(
        ["Groups:", *lines, "", *named, "", "conf/config.yaml:", (CONF / "config.yaml").read_text("utf-8")]
    )


def head(group: str, name: str) -> str:
    """Return the first sentence of the comment at the top of a file of conf/, or its first line."""
    text = (CONF / group / f"{name}.yaml").read_text("utf-8").splitlines()
    lines = [line.lstrip("#").removeprefix(" ") for line in takewhile(lambda t: t.startswith("#"), text)]
    first, *rest = [line for line in lines if line and not line.startswith("@package")] or [""]
    # what goes on in the next line begins with no capital; commands are indented and left out
    for line in takewhile(lambda line: not line[0].isupper() and not line[0].isspace(), rest):
        first = first if first.endswith(".") else f"{first} {line}"
    return first.partition(". ")[0] + "." if len(first) > LONG and ". " in first else first


def _models(names: list[str], _: list[str]) -> list[Record]:
    return [{"weights": _weights(_file("model", name))} for name in names]


def _weights(node: Mapping[str, Any]) -> str:
    """Return whether a model's weights are on this machine. The hub is not queried, which would take seconds
    and a network."""
    node = {key: value for key, value in node.items() if not isinstance(value, Mapping)}
    if instantiate(node, "model", "fovea.models").folder is None:
        return f"not here: `hf download {node['path']}` or model.path=FOLDER; model.weights=random for timing"
    why = obstacle(instantiate(node | {"device": device(node["device"])}, "model", "fovea.models"))
    return f"here: {node['path']}" if why is None else why.partition("\n")[0]


def _settings(group: str) -> Callable[[list[str], list[str]], list[Record]]:
    return lambda names, _: [{"settings": _defaults(group, name)} for name in names]


def _defaults(group: str, name: str) -> Record:
    """Return every setting with its default; `model.steps` if it comes from the model."""
    node = _file(group, name)
    cls = get_class(node.pop("_target_"))
    others = {f.name: f.default for f in fields(cls) if f.name not in node and f.init}
    return {key: _plain(value) for key, value in (node | others).items()}


def _file(group: str, name: str) -> Record:
    """Return a file of conf/ merged with those in its defaults list; a cache is given by its name."""
    node = read_option(group, name)
    found: Record = {}
    for under in node.pop("defaults", []):
        if isinstance(under, str):
            found |= _file(group, under) if under != "_self_" else {}
        else:
            found |= {key.removeprefix("override "): value for key, value in under.items()}
    return found | node


def _plain(value: Any) -> Any:
    """Convert ${oc.select:model.ras.resets,null} to `model.ras.resets or null`."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if key != "_target_"}
    if isinstance(value, str):
        value = re.sub(r"\$\{oc\.select:([^,}]+),([^}]+)\}", r"\1 or \2", value)
        return re.sub(r"\$\{([^}]+)\}", r"\1", value)
    return value


def _metrics(names: list[str], given: list[str]) -> list[Record]:
    print("asking each metric what it needs: some seconds", file=sys.stderr)
    nodes = whole(load([f"metric=[{','.join(names)}]", *given]))["metric"]
    arrows = {"higher": "↑", "lower": "↓"}
    found = []
    for name in names:
        made = instantiate(nodes[name], f"metric.{name}", "fovea.eval")
        why = obstacle(made)
        scores = " ".join(f"{score} {arrows[facts.better]}" for score, facts in made.scores.items())
        here = "a number can be had" if why is None else f"unavailable: {remedied(name, why)}"
        found.append({"scores": scores, "here": here})
    return found


def _suites(names: list[str], _: list[str]) -> list[Record]:
    return [{"metrics": ", ".join(suite(name)) or "none"} for name in names]


def _prompts(names: list[str], _: list[str]) -> list[Record]:
    from fovea.study.config.prompts import read

    found = []
    for name in names:
        try:
            found.append({"here": f"{len(read(name).all)} prompts"})
        except Refused as error:
            found.append({"here": f"no: {str(error).partition(': ')[2]}"})
    return found


KINDS = {
    "models": Kind("model", "model=NAME", _models),
    "methods": Kind("method", "method=NAME, method.SETTING=VALUE", _settings("method")),
    "caches": Kind(
        "method/cache",
        "cache=NAME, method.cache.SETTING=VALUE, with a method that takes one",
        _settings("method/cache"),
    ),
    "metrics": Kind("metric", "metric=[NAME,...], metric.NAME.SETTING=VALUE", _metrics),
    "suites": Kind("eval", "eval=NAME", _suites),
    "prompts": Kind("prompt", "prompts=NAME", _prompts),
    "experiments": Kind("experiment", "experiment=NAME"),
    "sweeps": Kind("sweep", "sweep=NAME"),
    "scales": Kind("scale", "scale=NAME"),
    "gpus": Kind("on", "plan=true on=NAME, on.SETTING=VALUE: a forecast", _settings("on")),
}

"""list=KIND: what there is to choose from, with what of it can be had on this machine."""

import json
from collections.abc import Mapping
from typing import Any

from fovea.study.commands.command import Deed
from fovea.study.commands.offer import MORE, Record, head
from fovea.study.config.compose import options
from fovea.study.config.errors import Refused, nearest
from fovea.study.report.terminal import say, show, terminal

FOLDERS = {
    "models": "model",
    "methods": "method",
    "caches": "method/cache",
    "metrics": "metric",
    "suites": "eval",
    "prompts": "prompt",
    "experiments": "experiment",
    "sweeps": "sweep",
    "scales": "scale",
}
KINDS = (*FOLDERS, "studies")
USE = {
    "models": "model=NAME",
    "methods": "method=NAME, method.SETTING=VALUE",
    "caches": "cache=NAME, method.cache.SETTING=VALUE, with a method that takes one",
    "metrics": "eval.metrics=[NAME,...], metric.NAME.SETTING=VALUE",
    "suites": "eval=NAME",
    "prompts": "prompts=NAME",
    "experiments": "experiment=NAME",
    "sweeps": "sweep=NAME",
    "scales": "scale=NAME",
}


def run(deed: Deed) -> int:
    if deed.value == "studies":
        from fovea.study.commands.show import every

        return every(deed)
    if deed.value not in FOLDERS:
        raise Refused(f"{deed.said}: no such list; {nearest(deed.value, KINDS)}")
    given = deed.only(*(["metric"] if deed.value == "metrics" else []))
    rows = [{"name": name, "what": head(FOLDERS[deed.value], name)} for name in options(FOLDERS[deed.value])]
    if more := MORE.get(deed.value):
        rows = [row | found for row, found in zip(rows, more([r["name"] for r in rows], given), strict=True)]
    console = terminal(120)
    show([["name", ""], *([row["name"], _text(row)] for row in rows)], console, left=2)
    say(f"use: {USE[deed.value]}", console, "dim")
    print(json.dumps({"list": deed.value, "names": [r["name"] for r in rows], "rows": rows}, default=str))
    return 0


def _text(row: Record) -> str:
    """What it is, and below it whatever else is known, a line each."""
    more = [f"{key}: {_line(value)}" for key, value in row.items() if key not in ("name", "what")]
    return "\n".join([row["what"], *more])


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_short(inner)}" for key, inner in value.items())
    return str(value)


def _short(value: Any) -> str:
    """As it is typed: null, true, [1, 2]."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")

"""What a model's file holds for methods, measured anew and written into it: after a training, for one.

    python -m scripts.recalibrate model=lumina_tiny [n=8 model.device=cuda ...]   # as for run.py

scripts.calibrate, then scripts.thresholds for each cache that has a threshold, with what the first has just
found and the settings of sweep=matrix, then scripts.budgets, all on one loaded model. In conf/model/NAME.yaml
their entries are written anew behind all others, which stay as they are, comments included.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from fovea.methods import Baseline
from fovea.models import Model, adapt
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.groups import CONF
from fovea.study.config.instantiate import instantiate
from fovea.study.config.prompts import Sample
from fovea.study.files import write
from scripts import budgets, calibrate, thresholds
from scripts.measuring import Entry, chosen, command, few, program, source, written

MEASURED = {"teacache": "coefficients", "magcache": "ratios"}  # that a cache cannot be without


def entries(
    model: Model, config: Mapping[str, Any], arguments: Sequence[str], node: dict, drawn: Sequence[Sample]
) -> dict[str, Entry]:
    """All, by the name of the method or the cache. node, drawn: of `measuring.chosen`."""
    found = calibrate.entries(calibrate.measure(model, node, drawn, config["batch"]))
    dense = thresholds.run(model, Baseline(node["steps"]), node, drawn, config["batch"])
    for name, settings in budgets.CACHES.items():
        known = found[name].settings[MEASURED[name]] if name in MEASURED else None
        given = [] if known is None else [f"method.cache.{MEASURED[name]}={known}"]
        caching = whole(load([*arguments, "method=caching", f"cache={name}", *settings, *given]))["method"]
        made = instantiate(caching, "method", "fovea.methods")
        print(name, file=sys.stderr)
        own = thresholds.entry(*thresholds.measured(model, made, dense, node, drawn, config["batch"]))
        found[name] = joined(found.get(name), own)
    flow = budgets.one(model, node, drawn)
    for name, search in budgets.SEARCHES.items():
        found[name] = joined(found.get(name), budgets.entry(flow, search, arguments))
    return found


def joined(first: Entry | None, second: Entry) -> Entry:
    """Both of one name."""
    if first is None:
        return second
    remarks = filter(None, (first.remark, second.remark))
    return Entry(first.settings | second.settings, "; ".join(remarks))


def replaced(text: str, measured: str) -> str:
    """A model's file with other entries. text: as it is. measured: the new ones, with the comment above them.
    What of the file is no such entry stays, and so do the comments above it."""
    names, kept, comments, inside = yaml.safe_load(measured), [], [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("#"):  # of the entry that follows
            comments.append(line)
        elif line.startswith((" ", "-")) or not line.strip():
            kept += [] if inside else [*comments, line]
            comments = []
        else:
            inside = line.partition(":")[0] in names
            kept += [] if inside else [*comments, line]
            comments = []
    return "".join(kept) + measured


def recalibrate(arguments: Sequence[str]) -> str:
    """The file's new entries, once they are in it. Raises Refused before anything is loaded."""
    given = [*few(arguments), *arguments]
    composed = load(given)
    config, name = whole(composed), composed.picked["model"]
    node, drawn, checkpoint = chosen(config)
    if len(drawn) * (checkpoint.steps - 1) <= calibrate.DEGREE or checkpoint.steps < 8:
        raise Refused(
            f"n={config['n']}, {checkpoint.steps} steps: too few to measure; raise n or model.steps"
        )
    with adapt(checkpoint.load()) as model:
        found = entries(model, config, given, node, drawn)
    told = source(command("recalibrate", arguments, config), drawn, checkpoint.steps) + written(found)
    file = CONF / "model" / f"{name}.yaml"
    write(file, replaced(file.read_text("utf-8"), told))
    return told


main = partial(program, recalibrate)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

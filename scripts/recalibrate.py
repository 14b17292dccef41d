"""Measure all settings that a model's file holds for methods and write them to it, e.g. after training.

    python -m scripts.recalibrate model=lumina_tiny [n=8 model.device=cuda ...]   # as for run.py

Runs scripts.calibrate, then scripts.thresholds for each cache with a threshold (using the constants just
measured and the settings of sweep=matrix), then scripts.budgets, loading the model once. In
conf/model/NAME.yaml the measured entries move to the end; everything else is unchanged, comments included.
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
from scripts.measuring import (
    Entry,
    command_line,
    default_n,
    measured_by,
    model_and_samples,
    run_command,
    to_yaml,
)

MEASURED = {"teacache": "coefficients", "magcache": "ratios"}  # settings that a cache cannot run without


def entries(
    model: Model, config: Mapping[str, Any], arguments: Sequence[str], node: dict, drawn: Sequence[Sample]
) -> dict[str, Entry]:
    """Return all entries, by method or cache. node, drawn: from `model_and_samples`."""
    found = calibrate.entries(calibrate.measure(model, node, drawn, config["batch"]))
    dense = thresholds.run_method(model, Baseline(node["steps"]), node, drawn, config["batch"])
    for name, settings in budgets.CACHES.items():
        known = found[name].settings[MEASURED[name]] if name in MEASURED else None
        given = [] if known is None else [f"method.cache.{MEASURED[name]}={known}"]
        caching = whole(load([*arguments, "method=caching", f"cache={name}", *settings, *given]))["method"]
        made = instantiate(caching, "method", "fovea.methods")
        print(name, file=sys.stderr)
        own = thresholds.entry(*thresholds.search_cache(model, made, dense, node, drawn, config["batch"]))
        found[name] = merged(found.get(name), own)
    flow = budgets.first_flow(model, node, drawn)
    for name, search in budgets.SEARCHES.items():
        found[name] = merged(found.get(name), budgets.entry(flow, search, arguments))
    return found


def merged(first: Entry | None, second: Entry) -> Entry:
    """Merge two entries of the same method."""
    if first is None:
        return second
    remarks = filter(None, (first.remark, second.remark))
    return Entry(first.settings | second.settings, "; ".join(remarks))


def with_entries(text: str, measured: str) -> str:
    """Return the text of a model's file with its measured entries replaced by new ones, `measured`, at the
    end. All other entries stay, with the comments above them."""
    names, kept, comments, inside = yaml.safe_load(measured), [], [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("#"):  # belongs to the entry below it
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
    """Write the new entries to the file and return them. Raises Refused before anything is loaded."""
    given = [*default_n(arguments), *arguments]
    composed = load(given)
    config, name = whole(composed), composed.picked["model"]
    node, drawn, checkpoint = model_and_samples(config)
    if len(drawn) * (checkpoint.steps - 1) <= calibrate.DEGREE or checkpoint.steps < budgets.FEWEST:
        raise Refused(
            f"n={config['n']}, {checkpoint.steps} steps: too few to measure; raise n or model.steps"
        )
    with adapt(checkpoint.load()) as model:
        found = entries(model, config, given, node, drawn)
    text = measured_by(command_line("recalibrate", arguments, config), drawn, checkpoint.steps) + to_yaml(
        found
    )
    file = CONF / "model" / f"{name}.yaml"
    write(file, with_entries(file.read_text("utf-8"), text))
    return text


main = partial(run_command, recalibrate)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

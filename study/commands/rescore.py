"""rescore=results/NAME: score the images of an existing study.

Cells, samples and settings are those in its provenance. Nothing is generated, and neither the model's weights
nor the prompt files are needed. Options:

    nothing                               the study's own metrics
    metric.NAME.KEY=VALUE                 the same with another setting
    metric=[...]                          other metrics; those the study had keep their settings
    eval=SUITE                            another suite, as in its file
    eval.strict=true, cost=..., versus=..., logger=..., results=FOLDER

Tables, plots and maps are written again. The provenance stays that of the images, with a note `rescored` on
how they were scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovea.study.commands.command import Command, root
from fovea.study.commands.run import MISSING, damaged, end, no_images, retry_on_damage, unavailable
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate, validated
from fovea.study.config.schema import Suite
from fovea.study.plan.nodes import Node
from fovea.study.plan.plan import Plan, labelled, planned
from fovea.study.run.progress import Progress
from fovea.study.run.provenance import command_line, git, now, packages
from fovea.study.store import Store
from fovea.study.stored import Stored, find

KEYS = ("eval", "metric", "cost", "versus", "logger")


def run(command: Command) -> int:
    given = [text for text in command.allow(*KEYS, "results") if root(text) in KEYS]
    study = find(command.text, command.value, command.results).folder
    made, stored = plan(study, given)
    store = Store(study)
    with store.at_work() as worker, Progress() as progress:
        for text in [*worker.notes, *unavailable(made), *damaged(made, store, MISSING)]:
            progress.say(text)
        images = [len(store.samples(cell.id).only(made.keys)) for cell in made.cells]
        chosen, before = (", ".join(m) or "nothing" for m in (made.metrics, stored["config"]["metric"]))
        progress.say(
            f"nothing is generated: scoring {sum(images)} stored images of {len(images)} cells "
            f"with {chosen} (before: {before}; only what is named now is in the table)"
        )
        from fovea.study.report.report import report

        origin = note(stored, made.config, command.arguments)
        tables, summary = retry_on_damage(lambda: report(made, store, origin), store, progress, MISSING)
    return end(made, store, tables, summary | {"rescored": list(made.metrics)})


def plan(study: Path, given: Sequence[str]) -> tuple[Plan, dict[str, Any]]:
    """Return the study's plan with the new metrics, and its provenance. given: arguments that set KEYS."""
    stored = Stored(study).provenance
    made = planned(study, stored, stored["config"] | _config(stored["config"], given))
    if made.settings.versus is not None:
        labelled(made.settings.versus, [cell.label for cell in made.cells])
    store = Store(study)
    store.check()
    if not any(store.samples(cell.id) for cell in made.cells):
        raise Refused(f"rescore={study}: {no_images(store)}")
    return made, stored


def note(stored: dict[str, Any], config: Node, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the images' provenance, with a note on how they were scored again."""
    scored = {"command": command_line(arguments), "time": now(), **git(), "packages": packages()}
    return stored | {"config": config, "rescored": scored}


def _config(stored: Node, given: Sequence[str]) -> Node:
    """Return the config that scores depend on: the study's own, with the command line's changes."""
    changed = {root(text) for text in given}
    plain = given if "cost" in changed else [f"cost={stored['cost']}", *given]
    if any(text.startswith("eval=") for text in given):
        config = whole(load(plain))
    else:
        listed = any(text.startswith("metric=") for text in given)
        names = [] if listed else [f"metric=[{','.join(stored['metric'])}]"]
        config = whole(load([*names, *plain], known=stored["metric"]))
        settings = {text.partition("=")[0].split(".")[1] for text in given if root(text) == "eval"}
        kept = {key: value for key, value in stored["eval"].items() if key in config["eval"]}
        config["eval"] = kept | {key: config["eval"][key] for key in settings}
    if "versus" not in changed:
        config["versus"] = stored.get("versus")
    validated(Suite, config["eval"], "eval")
    instantiate(config["logger"], "logger", "fovea.study")
    return {key: config[key] for key in KEYS}

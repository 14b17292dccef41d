"""From a config to a plan: the cells, the samples, and what will be unavailable, all checked; and the plan in
shards, of which a process makes one after the other."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused, nearest
from fovea.study.config.instantiate import instantiate, obstacle, validated
from fovea.study.config.prompts import Prompt, Sample, read, samples
from fovea.study.config.schema import COMMANDS, Settings, Suite, Sweep
from fovea.study.files import read_json
from fovea.study.plan import fingerprint
from fovea.study.plan.cells import GENERATION, Cell, Node, cells, full_model

OF_RUN = {"name", "plan", *COMMANDS}  # keys that say what to do, not what the study is
# and how, which may differ
OF_PROCESS = {"results", "launcher", "logger", "cell_timeout", "time_limit", "retry"}
MOST = 128  # shards of a model, about: few enough that looking for a free one takes no time


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
    gpu: Any = None  # that its time and memory are forecast on, if any

    @property
    def metrics(self) -> dict[str, Node]:
        return self.config["metric"]

    @property
    def digest(self) -> str:
        """The same for all who make and report the same, however they do."""
        said = {key: value for key, value in self.config.items() if key not in OF_RUN | OF_PROCESS}
        return fingerprint.digest([said, [c.id for c in self.cells], [s.key for s in self.samples]])

    @property
    def folder(self) -> Path:
        return Path(self.settings.results) / self.name


def make(overrides: Sequence[str]) -> Plan:
    """The whole study, checked: nothing is loaded, and nothing that can be refused comes later."""
    composed = load(overrides)
    config = whole(composed)
    nodes = {*composed.picked, "metric", "paper"}
    settings = validated(Settings, {key: v for key, v in config.items() if key not in nodes})
    sweep = validated(Sweep, config["sweep"], "sweep")
    validated(Suite, config["eval"], "eval")
    for node in ("logger", "launcher", *(["paper"] if "paper" in config else [])):
        instantiate(config[node], node, "fovea.study")
    gpu = _forecast_on(composed.picked["on"], config, settings)
    with _needing(config):
        prompts = read(settings.prompts)
    with _needing(config):  # before the cells are made, where all are of one model
        obtainable([] if sweep.of_models or gpu else [full_model(config["model"])[0]])
    found = cells(overrides, sweep, settings)
    if settings.versus is not None:
        labelled(settings.versus, [cell.label for cell in found])
    models = {fingerprint.digest(cell.model): cell.model for cell in found}.values()
    with _needing(config):
        obtainable(models if (sweep.of_models or settings.sibling) and not gpu else [])
    return Plan(
        settings,
        config,
        settings.name or name(composed.picked),
        found,
        samples(prompts.all[: settings.n], settings.seeds),
        prompts.origin,
        any(map(is_random, models)),
        unavailable(config),
        gpu,
    )


def _forecast_on(name: str, config: Node, settings: Settings) -> Any:
    """The GPU that `on` names: a forecast needs its data sheet, and no weights of a model."""
    if "on" not in config:
        return None
    if not settings.plan:
        raise Refused(
            f"on={name}: a study runs on the devices that are here, model.device=; with plan=true its "
            f"time and memory are forecast on this one: plan=true on={name}"
        )
    return instantiate(config["on"], "on", "fovea.models")


def planned(folder: Path, record: Mapping[str, Any], config: Node) -> Plan:
    """The plan of a study that was made before. folder: where it lies now. record: its provenance. config:
    with the metrics of now."""
    names = {f.name for f in fields(Settings)} - OF_RUN
    plain = {key: value for key, value in config.items() if key in names}
    return Plan(
        validated(Settings, plain | {"results": str(folder.parent)}),
        config,
        folder.resolve().name,
        [cell_of(name, known) for name, known in record["cells"].items()],
        [Sample(key, Prompt(r["id"], r["prompt"]), r["seed"]) for key, r in record["samples"].items()],
        record["prompts"]["set"],
        record["random_weights"],
        unavailable(config),
    )


def cell_of(name: str, record: Mapping[str, Any]) -> Cell:
    """The cell of a record in a study's provenance."""
    of_cell = {f.name: record[f.name] for f in fields(Cell) if f.name in record}
    if "series" not in of_cell:  # a study of before it was recorded
        known = {"dense": "dense", "steps": "step reduction"}
        of_cell["series"] = known.get(record["role"], record["label"].split(" ")[0])
    rest = {key: value for key, value in record.items() if key in ("model", "method") or key not in of_cell}
    return Cell(id=name, identity=rest, **of_cell)


def name(picked: Mapping[str, str]) -> str:
    """Of the study: the experiment's, or else method-model-sweep; with the scale where that is not full."""
    cached = [picked["cache"]] if picked["method"] == "caching" else []
    parts = [picked["method"], *cached, picked["model"], picked["sweep"]]
    if picked["experiment"] != "None":
        parts = [picked["experiment"]]
    return "-".join([*parts, *([picked["scale"]] if picked["scale"] != "full" else [])])


def unavailable(config: Node) -> dict[str, str]:
    """Metrics that lack their weights, and why; refused if eval.strict, or if two give one score."""
    nodes = config["metric"]
    made = {name: instantiate(node, f"metric.{name}", "fovea.eval") for name, node in nodes.items()}
    _distinct(made, config["eval"].get("margin") or {})
    missing = {name: remedied(name, why) for name, m in made.items() if (why := obstacle(m)) is not None}
    if missing and config["eval"].get("strict"):
        lines = [f"metric.{name}: {why} (eval.strict=true)" for name, why in missing.items()]
        raise Refused("\n".join(lines))
    return missing


def remedied(metric: str, text: str) -> str:
    """A remedy with the metric's own name in the keys that it says to set, `metric.NAME.weights=FILE`."""
    return text.replace("metric.NAME.", f"metric.{metric}.")


def obtainable(models: Iterable[Node]) -> None:
    """The weights of every model can be had, or the ways out are named."""
    for model in models:
        placed = model | {"device": fingerprint.device(model["device"])}
        why = obstacle(instantiate(placed, "model", "fovea.models"))
        if why is not None:
            raise Refused(why)


def is_random(model: Node) -> bool:
    """Built without training, or saved by one who says so of the checkpoint."""
    folder = instantiate(model, "model", "fovea.models").folder
    index = read_json(folder / "model_index.json") if folder else None
    return "random" in (model["weights"], (index or {}).get("weights"))


def labelled(label: str, labels: Iterable[str]) -> None:
    """Refused unless a cell is called so."""
    if label not in (known := list(labels)):
        raise Refused(f"versus={label}: no cell of this study; {nearest(label, known)}")


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


def _distinct(made: Mapping[str, Any], margin: Mapping[str, float]) -> None:
    """Each score is given by one metric, and each margin is of a score that is given."""
    giving: dict[str, str] = {}
    for name, metric in made.items():
        for score in metric.scores:
            if score in giving:
                raise Refused(f"metric: {giving[score]} and {name} both give {score}; leave one out")
            giving[score] = name
    for score in margin:
        if score not in giving and score not in (known := {name.partition("[")[0] for name in giving}):
            raise Refused(f"eval.margin.{score}: no metric gives such a score; {nearest(score, known)}")


@dataclass(frozen=True)
class Shard:
    """A block of a study's batches with all cells of one model, so that every speedup is of times taken by
    one process on one device, in turns. cells: by id. samples: by key, whole batches."""

    cells: tuple[str, ...]
    samples: tuple[str, ...]
    name: str  # of its lease: the same in every process

    def only(self, cells: Collection[str]) -> "Shard":
        """With these cells of it alone."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))


def shards(plan: Plan) -> list[Shard]:
    """All of a study. An even number of batches to a shard: there and back, so that no method is favoured."""
    keys, size = [s.key for s in plan.samples], plan.settings.batch
    batches = math.ceil(len(keys) / size)
    block = size * 2 * math.ceil(batches / (2 * MOST))
    parts = [tuple(keys[first : first + block]) for first in range(0, len(keys), block)]
    groups = [tuple(cell.id for cell in cells) for cells in by_loading(plan.cells)]
    return [Shard(ids, part, fingerprint.digest([ids, part])) for ids in groups for part in parts]


def by_loading(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that one loaded pipeline serves: their models differ in size, steps or guidance at most."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(loading(cell), []).append(cell)
    return list(groups.values())


def loading(cell: Cell) -> str:
    """Digest of what a pipeline is loaded by."""
    return fingerprint.digest({k: value for k, value in cell.model.items() if k not in GENERATION})

"""From a config to a plan: the cells, the samples and the metrics that will be unavailable, all validated;
and the plan's shards, which a process makes one at a time."""

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
from fovea.study.plan.cells import GENERATION, Cell, cells
from fovea.study.plan.nodes import Node, full_model, makes_another_image

ACTION_KEYS = {"name", "plan", *COMMANDS}  # keys that select an action and do not define the study
# keys that may differ between the processes of a study
PROCESS_KEYS = {"results", "launcher", "logger", "cell_timeout", "time_limit", "retry"}
MAX_SHARDS = 128  # approximate number of shards per model: few enough to search for a free one quickly


@dataclass(frozen=True)
class Plan:
    """A validated study.

    prompts: the record of the prompt set that the samples are from.
    unavailable: by metric, why it will give no score.
    gpu: the GPU to forecast time and memory for, if any.
    """

    settings: Settings
    config: Node
    name: str
    cells: list[Cell]
    samples: list[Sample]
    prompts: dict[str, Any]
    random_weights: bool
    unavailable: dict[str, str]
    gpu: Any = None

    @property
    def keys(self) -> list[str]:
        """The keys of the samples, in order."""
        return [sample.key for sample in self.samples]

    def warm_up(self, cell: Cell) -> list[Sample]:
        """The samples of a cell's cold start: a full batch, or one image where costs are FLOPs and no shape
        of a batch has to be compiled."""
        full = self.settings.cost == "time" or cell.model["compile"] != "none"
        return self.samples[: self.settings.batch if full else 1]

    @property
    def traced(self) -> list[Sample]:
        """The samples that are traced, in one call."""
        return self.samples[: min(self.settings.batch, self.settings.traces)]

    @property
    def metrics(self) -> dict[str, Node]:
        return self.config["metric"]

    @property
    def digest(self) -> str:
        """Equal for all processes that make and report the same study, however they run."""
        shared = {key: value for key, value in self.config.items() if key not in ACTION_KEYS | PROCESS_KEYS}
        return fingerprint.digest([shared, [c.id for c in self.cells], self.keys])

    @property
    def folder(self) -> Path:
        return Path(self.settings.results) / self.name


def make(overrides: Sequence[str]) -> Plan:
    """Plan the whole study. Nothing is loaded, and every input is validated here."""
    composed = load(overrides)
    config = whole(composed)
    nodes = {*composed.picked, "metric", "paper"}
    settings = validated(Settings, {key: v for key, v in config.items() if key not in nodes})
    sweep = validated(Sweep, config["sweep"], "sweep")
    validated(Suite, config["eval"], "eval")
    for node in ("logger", "launcher", *(["paper"] if "paper" in config else [])):
        instantiate(config[node], node, "fovea.study")
    gpu = _forecast_on(composed.picked["on"], config, settings)
    with _naming_requirements(config):
        prompts = read(settings.prompts)
    with _naming_requirements(config):  # early, if all cells have the same model
        obtainable([] if sweep.of_models or gpu else [full_model(config["model"])[0]])
    found = cells(overrides, sweep, settings)
    if settings.versus is not None:
        labelled(settings.versus, [cell.label for cell in found])
    models = {fingerprint.digest(cell.model): cell.model for cell in found}.values()
    with _naming_requirements(config):
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
    """Return the GPU that `on` names. A forecast uses its data sheet and needs no model weights."""
    if "on" not in config:
        return None
    if not settings.plan:
        raise Refused(
            f"on={name}: only a forecast can be for another device; add plan=true for one, or leave "
            "on out to run on model.device"
        )
    return instantiate(config["on"], "on", "fovea.models")


def planned(folder: Path, record: Mapping[str, Any], config: Node) -> Plan:
    """Return the plan of a study that was made before.

    folder: where the study is now.
    record: its provenance.
    config: its config with the metrics to use now.
    """
    names = {f.name for f in fields(Settings)} - ACTION_KEYS
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
    """Return the cell of a record in a study's provenance; `provenance.described` is the inverse."""
    of_cell = {f.name: record[f.name] for f in fields(Cell) if f.name in record}
    if "another_image" not in of_cell:  # studies made before it was recorded
        method = instantiate(record["method"], "method", "fovea.methods")
        of_cell["another_image"] = record["role"] == "sibling" or makes_another_image(method)
    rest = {key: value for key, value in record.items() if key in ("model", "method") or key not in of_cell}
    return Cell(id=name, identity=rest, **of_cell)


def name(picked: Mapping[str, str]) -> str:
    """Return the study's name: the experiment, or else method-model-sweep; with the scale unless it is
    full."""
    cached = [picked["cache"]] if picked["method"] == "caching" else []
    parts = [picked["method"], *cached, picked["model"], picked["sweep"]]
    if picked["experiment"] != "None":
        parts = [picked["experiment"]]
    return "-".join([*parts, *([picked["scale"]] if picked["scale"] != "full" else [])])


def unavailable(config: Node) -> dict[str, str]:
    """Return the metrics that lack their weights, and why. Raises Refused if eval.strict is set, or if two
    metrics give the same score."""
    nodes = config["metric"]
    made = {name: instantiate(node, f"metric.{name}", "fovea.eval") for name, node in nodes.items()}
    _check_scores(made, config["eval"].get("margin") or {})
    missing = {name: remedied(name, why) for name, m in made.items() if (why := obstacle(m)) is not None}
    if missing and config["eval"].get("strict"):
        lines = [f"metric.{name}: {why} (eval.strict=true)" for name, why in missing.items()]
        raise Refused("\n".join(lines))
    return missing


def remedied(metric: str, text: str) -> str:
    """Replace NAME in the keys of a remedy, `metric.NAME.weights=FILE`, by the metric's name."""
    return text.replace("metric.NAME.", f"metric.{metric}.")


def obtainable(models: Iterable[Node]) -> None:
    """Raise Refused, with the remedies, if the weights of a model cannot be obtained."""
    for model in models:
        placed = model | {"device": fingerprint.device(model["device"])}
        why = obstacle(instantiate(placed, "model", "fovea.models"))
        if why is not None:
            raise Refused(why)


def is_random(model: Node) -> bool:
    """True if the model is built with random weights, or its checkpoint says that it was saved so."""
    folder = instantiate(model, "model", "fovea.models").folder
    index = read_json(folder / "model_index.json") if folder else None
    return "random" in (model["weights"], (index or {}).get("weights"))


def labelled(label: str, labels: Iterable[str]) -> None:
    """Raise Refused unless a cell has this label."""
    if label not in (known := list(labels)):
        raise Refused(f"versus={label}: no cell of this study has this label; {nearest(label, known)}")


@contextmanager
def _naming_requirements(config: Node) -> Iterator[None]:
    """If something is missing, state everything that the experiment needs."""
    try:
        yield
    except Refused as error:
        if "paper" not in config:
            raise
        needs = "; ".join(config["paper"]["needs"])
        raise Refused(
            f"{error}\nat full size this experiment needs {needs}; scale=tiny needs none of it"
        ) from None


def _check_scores(made: Mapping[str, Any], margin: Mapping[str, float]) -> None:
    """Raise Refused if two metrics give the same score, or a margin names a score that no metric gives."""
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
    """A block of batches, with all cells of one model: every speedup compares times taken alternately by one
    process on one device.

    cells: ids.
    samples: keys, in whole batches.
    name: name of its lease, equal in every process.
    """

    cells: tuple[str, ...]
    samples: tuple[str, ...]
    name: str

    def only(self, cells: Collection[str]) -> "Shard":
        """Return the shard restricted to these cells."""
        return replace(self, cells=tuple(cell for cell in self.cells if cell in cells))


def shards(plan: Plan) -> list[Shard]:
    """Divide a study into shards. Each has an even number of batches: the order of cells alternates, so no
    method is favoured."""
    keys, size = plan.keys, plan.settings.batch
    batches = math.ceil(len(keys) / size)
    block = size * 2 * math.ceil(batches / (2 * MAX_SHARDS))
    parts = [tuple(keys[first : first + block]) for first in range(0, len(keys), block)]
    groups = [tuple(cell.id for cell in cells) for cells in by_loading(plan.cells)]
    return [Shard(ids, part, fingerprint.digest([ids, part])) for ids in groups for part in parts]


def by_loading(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Group the cells that one loaded pipeline serves: their models differ at most in size, steps or
    guidance."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(loading(cell), []).append(cell)
    return list(groups.values())


def loading(cell: Cell) -> str:
    """Return the digest of the settings that a pipeline is loaded with."""
    return fingerprint.digest({k: value for k, value in cell.model.items() if k not in GENERATION})

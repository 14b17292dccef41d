"""Loggers for a finished report. They read only the study's folder, so they can run at any time."""

import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.study.report.table import visible
from fovea.study.stored import Stored

EXCLUDED_FOLDERS = {"cells", "runs", "wandb"}  # folders of a study that are not part of its report
SYSTEM_KEYS = ("command", "commit", "dirty", "python", "system", "packages", "machine", "threads", "seeds")
CURVES = {
    "error_mean": "departure from the dense trajectory",
    "tokens": "share of the model that the tokens had",
    "rank_correlation": "rank correlation of the scores with those of the step before",
}


@dataclass(frozen=True)
class Nothing:
    """No logging beyond the study's folder."""

    def __call__(self, folder: Path) -> None:
        pass


@dataclass(frozen=True)
class Wandb:
    """Log a study's folder as one wandb run. Failures never affect the study; one line reports the outcome.

    mode: `offline` keeps the run in the study's folder until `wandb sync`; `online` falls back to it.
    images: number of images per cell.
    timeout: seconds to wait for the server, and again for the upload.
    """

    project: str = "fovea"
    entity: str | None = None
    mode: Literal["offline", "online", "disabled"] = "offline"
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    images: Annotated[int, Field(ge=0)] = 8
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0

    def __call__(self, folder: Path) -> None:
        if self.mode != "disabled":
            print(f"wandb: {self._logged(Stored(folder))}", file=sys.stderr)

    def _logged(self, study: Stored) -> str:
        """Log the study and return the outcome in words."""
        before = ""
        if self.mode == "online":
            try:
                return self._sent(study, "online")
            except (Exception, SystemExit) as error:  # wandb may raise anything
                before = f"not sent ({_one_line(error)}); "
        try:
            return before + self._sent(study, "offline")
        except (Exception, SystemExit) as error:
            return f"{before}not logged ({_one_line(error)}); the study itself is complete"

    def _sent(self, study: Stored, mode: Literal["online", "offline"]) -> str:
        import wandb

        logging.getLogger("wandb").addHandler(logging.NullHandler())  # failures are reported in one line
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=self.timeout,
            login_timeout=self.timeout,
            finish_timeout=self.timeout,
            finish_timeout_raises=True,
            x_disable_stats=True,  # this machine's load now is not that of the measurement
            x_disable_meta=True,
        )
        wandb.setup(settings)  # the login reads its settings from here only
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            dir=str(study.folder.resolve()),
            name=study.name,
            config=config(study),
            tags=tags(study, self.tags),
            settings=settings,
        )
        try:
            missing = _log(run, study, self.images)
            run.finish()
        finally:
            wandb.teardown()
        kept = f"kept offline, to be sent by: wandb sync {shlex.quote(str(Path(run.dir).parent))}"
        url = run.url if mode == "online" else None
        return (url or kept) + "".join(f"; without {part}: {why}" for part, why in missing.items())


def _log(run: Any, study: Stored, shown: int) -> dict[str, str]:
    """Log every part, and return those that failed with the reason."""
    parts: dict[str, Callable[[], object]] = {
        "summary": lambda: run.summary.update(summary(study)),
        "table": lambda: run.log({"table": table(study)}),
        "plots": lambda: run.log(pictures(study)),
        "images": lambda: run.log(images(study, shown)),
        "curves": lambda: run.log(curves(study)),
        "report": lambda: run.log(page(study)),
        "files": lambda: run.log_artifact(files(study)),
    }
    missing = {}
    for name, part in parts.items():
        try:
            part()
        except Exception as error:  # log the other parts anyway
            missing[name] = _one_line(error)
    return missing


def _one_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return visible(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def config(study: Stored) -> dict[str, Any]:
    record = study.provenance
    system = {key: record[key] for key in SYSTEM_KEYS if key in record}
    return {**record.get("config", {}), "random_weights": study.random_weights, "made_by": system}


def tags(study: Stored, more: Iterable[str]) -> list[str]:
    """Return the names of the models and methods, and the tags in `more`."""
    cells = study.provenance.get("cells", {}).values()
    methods = [c["method"]["_target_"].split(".")[-1].lower() for c in cells if c["role"] == "method"]
    models = [Path(c["model"]["path"]).name for c in cells]
    random = ["random weights"] if study.random_weights else []
    return list(dict.fromkeys(tag[:64] for tag in [*random, *models, *methods, *more]))


def summary(study: Stored) -> dict[str, Any]:
    """Return speedup, FLOPs ratio and gains over step reduction, with bounds, of each method's cell."""
    found: dict[str, Any] = {"cells": study.done[1], "done": study.done[0]}
    gains = (f"{score}_gain{end}" for score in study.scores for end in ("", "_low", "_high"))
    keys = ["speedup", "flops_ratio", *gains]
    for record in study.records:
        if record["role"] == "method":
            known = {f"{record['label']}/{key}": record.get(key) for key in keys}
            found |= {key: value for key, value in known.items() if value is not None}
    return found


def table(study: Stored) -> Any:
    import wandb

    columns: list[Any] = list(study.records[0])
    data: list[Any] = [[record[key] for key in columns] for record in study.records]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def pictures(study: Stored) -> dict[str, Any]:
    """Return plots and maps of the report by their path without .png."""
    import wandb

    plots = {place: file for place, file in _report_files(study) if file.suffix == ".png"}
    return {place.removesuffix(".png"): wandb.Image(str(file)) for place, file in plots.items()}


def _report_files(study: Stored) -> Iterator[tuple[str, Path]]:
    """Yield the files of the report with their path in the study's folder."""
    for file in sorted(study.folder.rglob("*")):
        place = file.relative_to(study.folder)
        if place.parts[0] not in EXCLUDED_FOLDERS and file.is_file() and not file.name.startswith("."):
            yield str(place), file


def images(study: Stored, shown: int) -> dict[str, list[Any]]:
    """Return the first images of each cell, with their prompts as captions."""
    import wandb

    found: dict[str, list[Any]] = {}
    samples = study.provenance.get("samples", {})
    for cell, known in study.provenance.get("cells", {}).items():
        files = [(study.image(cell, key), s) for key, s in list(samples.items())[:shown]]
        there = [wandb.Image(str(f), caption=f"{s['prompt']} (seed {s['seed']})") for f, s in files if f]
        found |= {f"images/{known['label']}": there} if there else {}
    return found


def curves(study: Stored) -> dict[str, Any]:
    """Return charts over steps, one line per cell (the mean of its traced images); empty without traces."""
    charts = {f"curves/{name}": _chart(study, name, title) for name, title in CURVES.items()}
    return {name: chart for name, chart in charts.items() if chart is not None}


def _chart(study: Stored, name: str, title: str) -> Any:
    import wandb

    lines: dict[str, dict[int, list[float]]] = {}
    for record in study.traces:
        if (value := record.get(name)) is not None:
            lines.setdefault(record["label"], {}).setdefault(record["step"], []).append(value)
    if not lines:
        return None
    means = [[mean(values) for values in line.values()] for line in lines.values()]
    return wandb.plot.line_series([list(line) for line in lines.values()], means, list(lines), title, "step")


def page(study: Stored) -> dict[str, Any]:
    import wandb

    file = study.folder / "report.html"
    return {"report": wandb.Html(file.read_text("utf-8"), inject=False)} if file.is_file() else {}


def files(study: Stored) -> Any:
    """Return an artifact with all files of the report."""
    import wandb

    name = re.sub(r"[^A-Za-z0-9_.-]", "_", study.name)
    artifact = wandb.Artifact(name, "study", metadata={"commit": study.provenance.get("commit")})
    for place, file in _report_files(study):
        artifact.add_file(str(file), place)
    return artifact

"""What wandb gets of a study: all of it read from the study's folder, so that it can be sent at any time.

    python -m fovea.study.report.send '{"folder": ..., "mode": ..., ...}'

is what log.py starts; the last line of stdout is a JSON object: `run`, the folder of the wandb run,
`url`, `without`, what could not be logged and why; or `error`."""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import wandb
from PIL import Image

from fovea.study.stored import Stored

OWN = {"cells", "runs", "wandb"}  # folders of a study that are no part of its report
SYSTEM = ("command", "commit", "dirty", "python", "system", "packages", "machine", "threads", "seeds")

CURVES = {
    "error_mean": "departure from the dense trajectory",
    "tokens": "share of the model that the tokens had",
    "rank_correlation": "rank correlation of the scores with those of the step before",
}


def send(asked: dict[str, Any]) -> dict[str, Any]:
    study = Stored(Path(asked["folder"]))
    run = wandb.init(
        project=asked["project"],
        entity=asked["entity"],
        mode=asked["mode"],
        dir=str(study.folder),
        name=study.name,
        config=config(study),
        tags=tags(study, asked["tags"]),
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=asked["timeout"] / 4,
            x_disable_stats=True,  # of this process, which is not the one that was measured
            x_disable_meta=True,
        ),
    )
    parts: dict[str, Callable[[], object]] = {
        "summary": lambda: run.summary.update(summary(study)),
        "table": lambda: run.log({"table": table(study)}),
        "plots": lambda: run.log(pictures(study)),
        "images": lambda: run.log(images(study, asked["images"])),
        "curves": lambda: run.log(curves(study)),
        "report": lambda: run.log(page(study)),
        "files": lambda: run.log_artifact(files(study)),
    }
    without = dict(filter(None, (_tried(name, part) for name, part in parts.items())))
    place, url = Path(run.dir).parent, run.url if asked["mode"] == "online" else None
    run.finish()
    return {"run": str(place), "url": url, "without": without}


def _tried(name: str, part: Callable[[], object]) -> tuple[str, str] | None:
    try:
        part()
    except Exception as error:  # the other parts are worth having without it
        return name, _said(error)
    return None


def config(study: Stored) -> dict[str, Any]:
    record = study.provenance
    system = {key: record[key] for key in SYSTEM if key in record}
    return {**record.get("config", {}), "random_weights": study.random_weights, "made_by": system}


def tags(study: Stored, more: Iterable[str]) -> list[str]:
    """Of all cells the method's and the model's name."""
    cells = study.provenance.get("cells", {}).values()
    methods = [c["method"]["_target_"].split(".")[-1].lower() for c in cells if c["role"] == "method"]
    models = [Path(c["model"]["path"]).name for c in cells]
    random = ["random weights"] if study.random_weights else []
    return list(dict.fromkeys(tag[:64] for tag in [*random, *models, *methods, *more]))


def summary(study: Stored) -> dict[str, Any]:
    """What each method is worth: its speedup, and its gain over step reduction with the bounds."""
    found: dict[str, Any] = {"cells": study.done[1], "done": study.done[0]}
    gains = (f"{score}_gain{end}" for score in study.scores for end in ("", "_low", "_high"))
    keys = ["speedup", "flops_ratio", *gains]
    for record in study.records:
        if record["role"] == "method":
            known = {f"{record['label']}/{key}": record.get(key) for key in keys}
            found |= {key: value for key, value in known.items() if value is not None}
    return found


def table(study: Stored) -> wandb.Table:
    columns: list[Any] = list(study.records[0])
    data: list[Any] = [[record[key] for key in columns] for record in study.records]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def pictures(study: Stored) -> dict[str, Any]:
    """Plots, focus maps and animations of the report, by their place in the folder, without .png."""
    found = {}
    for file in sorted(study.folder.rglob("*")):
        place = file.relative_to(study.folder)
        if file.suffix in (".png", ".webp", ".gif") and place.parts[0] not in OWN:
            found[str(place).removesuffix(".png")] = _picture(file)
    return found


def _picture(file: Path) -> wandb.Image | wandb.Html:
    with Image.open(file) as image:
        moving, kind = getattr(image, "is_animated", False), Image.MIME[image.format or "PNG"]
    if not moving:
        return wandb.Image(str(file))
    data = base64.b64encode(file.read_bytes()).decode()  # as it is: wandb would keep the first frame
    return wandb.Html(f'<img alt="{kind}" src="data:{kind};base64,{data}">', inject=False)


def images(study: Stored, shown: int) -> dict[str, list[wandb.Image]]:
    """The first images of each cell with their prompts."""
    found: dict[str, list[wandb.Image]] = {}
    samples = study.provenance.get("samples", {})
    for cell, known in study.provenance.get("cells", {}).items():
        files = [(study.image(cell, key), s) for key, s in list(samples.items())[:shown]]
        there = [wandb.Image(str(f), caption=f"{s['prompt']} (seed {s['seed']})") for f, s in files if f]
        found |= {f"images/{known['label']}": there} if there else {}
    return found


def curves(study: Stored) -> dict[str, Any]:
    """What the traces hold step by step: a line per cell, the mean of its traced images. Nothing of studies
    without traces."""
    charts = {f"curves/{name}": _chart(study, name, title) for name, title in CURVES.items()}
    return {name: chart for name, chart in charts.items() if chart is not None}


def _chart(study: Stored, name: str, title: str) -> Any:
    lines: dict[str, dict[int, list[float]]] = {}
    for record in study.traces:
        if (value := record.get(name)) is not None:
            lines.setdefault(record["label"], {}).setdefault(record["step"], []).append(value)
    if not lines:
        return None
    means = [[mean(values) for values in line.values()] for line in lines.values()]
    return wandb.plot.line_series([list(line) for line in lines.values()], means, list(lines), title, "step")


def page(study: Stored) -> dict[str, Any]:
    file = study.folder / "report.html"
    return {"report": wandb.Html(file.read_text("utf-8"), inject=False)} if file.is_file() else {}


def files(study: Stored) -> wandb.Artifact:
    """The report in all its forms."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", study.name)
    artifact = wandb.Artifact(name, "study", metadata={"commit": study.provenance.get("commit")})
    for file in sorted(study.folder.rglob("*")):
        place = file.relative_to(study.folder)
        if file.is_file() and place.parts[0] not in OWN and not file.name.startswith("."):
            artifact.add_file(str(file), str(place))
    return artifact


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]


def main(text: str) -> int:
    try:
        sent = send(json.loads(text))
    except Exception as error:  # whatever it is, one line says it
        sent = {"error": _said(error)}
    print(f"\n{json.dumps(sent)}", flush=True)
    return "error" in sent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

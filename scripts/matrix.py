"""Combine the matrix studies into one table and one figure of each method's gain over step reduction.

    for m in lumina sd3 flux; do
        python run.py sweep=matrix model=${m}_tiny cost=flops results=results/embedded name=matrix-$m
    done
    python -m scripts.matrix results/embedded matrix

Reads FOLDER/NAME-*/table.parquet and samples.parquet; writes FOLDER/NAME/table.md and gain.png, .svg. A
method's gain is its score minus that of step reduction at the same FLOPs, with a 95 % interval computed by
the current code, whichever version made the study's own table. Methods at less than 3 times fewer FLOPs than
dense are in the first part, the others in the second.
"""

import re
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from fovea.study.files import write
from fovea.study.report.style import COLOURS, FAINT, INK, MUTED, figure, save
from fovea.study.stored import Record, Stored
from scripts.studies import folder_and_name, gains

SPLIT = 3.0  # times fewer FLOPs that separates the twofold from the fourfold settings
PARTS = ("about 2 times fewer FLOPs", "about 4 times fewer FLOPs")
SCORES = ("psnr", "clip_score[emoji]", "fd[emoji]")
KINDS = {"steps": 0, "ras": 2, "random": 2, "ralu": 1}  # colour by family of methods; caches have the last
VARIANT = re.compile(r"(?:solver|stale|selection|basis|lift|damping)=(\S+)")
ENDS = {"high_ratio=1": "lowest", "high_ratio=0": "highest"}  # which tokens of RAS's ranking run


def read(folder: Path, name: str) -> list[Record]:
    """Read the method rows of every study; add model, part, gains and a name shared between models."""
    rows = []
    for file in sorted(folder.glob(f"{name}-*/table.parquet")):
        model, study = file.parent.name.removeprefix(f"{name}-"), Stored(file.parent)
        found = gains(study)
        for row in study.records:
            if row["role"] == "method" and row["flops_ratio"]:
                part = PARTS[row["flops_ratio"] >= SPLIT]
                rows.append(
                    row | {"model": model, "part": part, "name": short_name(row), "gains": found[row["cell"]]}
                )
    if not rows:
        raise SystemExit(f"no {name}-*/table.parquet in {folder}: run the studies first, see --help")
    return rows


def short_name(row: Record) -> str:
    """Shorten a label: ras ratio=0.25 stale=taylor -> ras taylor. The studies' tables have the settings."""
    variants = VARIANT.findall(row["label"]) + [name for end, name in ENDS.items() if end in row["label"]]
    return " ".join([row["label"].split()[0], *variants])


def markdown(rows: Sequence[Record]) -> str:
    models, lines = sorted({row["model"] for row in rows}), []
    for part in PARTS:
        group = [row for row in rows if row["part"] == part]
        head = [f"{model}: FLOPs, PSNR, CLIP, FD" for model in models]
        lines += [
            f"At {part}, gain over step reduction in {', '.join(SCORES)} (+ is better, bold: its 95 % "
            "interval, not corrected for the many, leaves out 0):",
            "",
        ]
        lines += [f"| method | {' | '.join(head)} |", "| :-- |" + " --: |" * len(models)]
        for name in ranked(group):
            lines.append(f"| {name} | {' | '.join(cell(group, name, model) for model in models)} |")
        lines.append("")
    return "\n".join(lines)


def ranked(group: Sequence[Record]) -> list[str]:
    """Sort names by mean gain in PSNR over the models; those without a gain come last."""
    gains: dict[str, list[float]] = {}
    for row in group:
        gains.setdefault(row["name"], []).append(gain(row, "psnr")[0])
    known = {name: [g for g in found if not isnan(g)] for name, found in gains.items()}
    return sorted(known, key=lambda name: -fmean(known[name]) if known[name] else float("inf"))


def gain(row: Record, score: str) -> tuple[float, float, float]:
    """Return value, low and high; NaN if the study has no gain."""
    found = row["gains"].get(score)
    return (nan, nan, nan) if found is None else (found.value, found.low, found.high)


def cell(group: Sequence[Record], name: str, model: str) -> str:
    found = [row for row in group if (row["name"], row["model"]) == (name, model)]
    if not found:
        return "–"
    return ", ".join([f"{found[0]['flops_ratio']:.2f}×", *(gain_text(found[0], score) for score in SCORES)])


def gain_text(row: Record, score: str) -> str:
    value, low, high = gain(row, score)
    if isnan(value):
        return "–"
    text = f"{value:+.{0 if score.startswith('fd') else 1}f}".replace("-", "−")
    return f"**{text}**" if low * high > 0 else text


def draw(rows: Sequence[Record], path: Path) -> None:
    """Plot gains in PSNR with intervals, one panel per model and part; below zero, fewer steps are better."""
    rows = [row for row in rows if not isnan(gain(row, "psnr")[0])]
    models = sorted({row["model"] for row in rows})
    names = {part: ranked([row for row in rows if row["part"] == part])[::-1] for part in PARTS}
    heights = [max(len(found), 1) for found in names.values()]
    with figure(9.5, 0.19 * sum(heights) + 1.4) as made:
        axes = made.subplots(len(PARTS), len(models), sharex="col", squeeze=False, height_ratios=heights)
        for line, part in zip(axes, PARTS, strict=True):
            for axis, model in zip(line, models, strict=True):
                here = [row for row in rows if (row["part"], row["model"]) == (part, model)]
                panel(axis, here, names[part])
                axis.set_title(f"{model}_tiny, {part}", size=8)
            for axis in line[1:]:
                axis.tick_params(labelleft=False)
        made.supxlabel("gain in PSNR (dB) over step reduction at equal FLOPs; bars: 95 %", size=8.5)
        save(made, path, "png", "svg")


def panel(axis: Any, rows: Sequence[Record], names: Sequence[str]) -> None:
    axis.axvline(0, color=MUTED, linewidth=0.8)
    axis.grid(axis="x", color=FAINT, linewidth=0.4)
    for row in rows:
        value, low, high = gain(row, "psnr")
        y, colour = names.index(row["name"]), COLOURS[KINDS.get(row["name"].split()[0].split("_")[0], 3)]
        axis.plot([low, high], [y, y], color=colour, linewidth=1.2)
        axis.plot(value, y, "o", color=colour, markersize=3.6)
    axis.set_yticks(range(len(names)), names, size=7.5, color=INK)
    axis.set_ylim(-0.7, len(names) - 0.3)


def main() -> None:
    folder, name = folder_and_name(__doc__, "matrix")
    rows = read(folder, name)
    write(folder / name / "table.md", markdown(rows))
    draw(rows, folder / name / "gain")


if __name__ == "__main__":
    main()

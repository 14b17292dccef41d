"""The table in its forms: terminal, .md, .tex, .csv, .parquet. The same rows, the same digits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from fovea.study.analysis.row import Row
from fovea.study.analysis.verdict import volumes
from fovea.study.report import terminal
from fovea.study.report.records import records
from fovea.study.report.table import RANDOM, cells, notes
from fovea.study.report.typeset import latex, markdown
from fovea.study.store import write


def show(rows: Sequence[Row], random_weights: bool, console: Console) -> None:
    styles = ["red" if row.failure else "dim" if row.cell.role == "steps" else "" for row in rows]
    terminal.study(cells(rows), console, styles)
    for note in notes(rows, random_weights):
        terminal.say(note, console, "dim")


def save(
    folder: Path, rows: Sequence[Row], samples: Sequence[Mapping[str, Any]], random_weights: bool
) -> None:
    """table.md, .csv, .tex, .parquet, hypervolume.csv and samples.parquet."""
    table = pd.DataFrame(records(rows, random_weights))
    lines, said = cells(rows), notes(rows, random_weights)
    write(folder / "table.md", markdown(lines, said))
    write(folder / "table.tex", latex(lines, said, RANDOM if random_weights else None))
    write(folder / "table.csv", table.to_csv(index=False))
    write(folder / "hypervolume.csv", pd.DataFrame(volumes(rows)).to_csv(index=False))
    for name, frame in (("table", table), ("samples", pd.DataFrame(list(samples)))):
        write(folder / f"{name}.parquet", frame.to_parquet(index=False))

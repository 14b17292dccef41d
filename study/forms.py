"""The table in its forms: terminal, .md, .tex, .csv, .parquet. The same rows, the same digits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from study import terminal
from study.row import Row
from study.store import write
from study.table import RANDOM, cells, notes, records
from study.verdict import volumes

TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
}


def show(rows: Sequence[Row], random_weights: bool, console: Console) -> None:
    styles = ["red" if row.failure else "dim" if row.cell.role == "steps" else "" for row in rows]
    terminal.show(cells(rows, brief=console.width < terminal.WIDE), console, styles=styles)
    for note in notes(rows, random_weights):
        terminal.say(note, console, "dim")


def markdown(rows: Sequence[Row], random_weights: bool) -> str:
    head, *body = [[text.replace("|", r"\|").replace("<", "&lt;") for text in line] for line in cells(rows)]
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n\n".join(n.replace("<", "&lt;") for n in notes(rows, random_weights)) + "\n"


def latex(rows: Sequence[Row], random_weights: bool) -> str:
    """A booktabs tabular; \\usepackage{booktabs} is all it needs."""
    head, *body = [[escaped(text) for text in line] for line in cells(rows)]
    lines = [f"% {escaped(' '.join(note.split()))}" for note in notes(rows, random_weights)]
    lines += [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        f"{' & '.join(head)} \\\\",
        r"\midrule",
    ]
    lines += [f"{' & '.join(line)} \\\\" for line in body]
    if random_weights:
        lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{escaped(RANDOM)}}} \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)


def save(
    folder: Path, rows: Sequence[Row], samples: Sequence[Mapping[str, Any]], random_weights: bool
) -> None:
    """table.md, .csv, .tex, .parquet, hypervolume.csv and samples.parquet."""
    table = pd.DataFrame(records(rows, random_weights))
    write(folder / "table.md", markdown(rows, random_weights))
    write(folder / "table.tex", latex(rows, random_weights))
    write(folder / "table.csv", table.to_csv(index=False))
    write(folder / "hypervolume.csv", pd.DataFrame(volumes(rows)).to_csv(index=False))
    for name, frame in (("table", table), ("samples", pd.DataFrame(list(samples)))):
        write(folder / f"{name}.parquet", frame.to_parquet(index=False))

"""Write tables as Markdown, LaTeX, CSV and Parquet, and read them back from Parquet."""

import io
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow.parquet import read_table, write_table

from fovea.study.files import remove, write
from fovea.study.report.table import Column, Entry, Table, visible
from fovea.study.stored import FORMATTING

FORMULA_STARTS = ("=", "+", "-", "@")  # a spreadsheet evaluates text that starts with one of these
VERSION = 1
TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",  # \textquotedbl is not in LaTeX's usual encoding
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
    "Δ": r"$\Delta$",
    "σ": r"$\sigma$",
}
PDFLATEX_GLYPHS = (
    "‘’“”—…‡§°µ¼½¾·£€©®"  # known to pdflatex without a package, as are letters with these accents
)
ACCENTS = "\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327"
MARKUP = re.compile(  # Markdown syntax: emphasis, table columns, links
    r"[\\~|]|\*(?=\S)|(?<=\S)\*|(?<!\w)_|_(?!\w)|(?<=\])[(:\[]|(?<=:)//|(?<=www)\."
)


def save(table: Table | None, path: Path) -> None:
    """Write .md, .tex, .csv and .parquet. Without a table, remove those of an earlier report.

    path: without suffix.
    """
    if table is None:
        remove(path, ".md", ".tex", ".csv", ".parquet")
        return
    write(path.with_suffix(".md"), markdown(table))
    write(path.with_suffix(".tex"), latex(table))
    write(path.with_suffix(".csv"), csv(table.records()))
    write(path.with_suffix(".parquet"), stored(table))


def markdown(table: Table) -> str:
    head, *body = table.lines()
    left = [column.left for column in table.shown]  # text columns
    body = [
        [literal(text) if is_text else text for text, is_text in zip(row, left, strict=True)] for row in body
    ]
    rule = [":--" if is_text else "--:" for is_text in left]
    lines = [f"| {' | '.join(row)} |" for row in ([literal(name) for name in head], rule, *body)]
    return "\n\n".join(["\n".join(lines), *map(literal, table.all_notes)]) + "\n"


def literal(text: str) -> str:
    """Escape text so that Markdown renders it literally: no HTML, emphasis or links."""
    plain = MARKUP.sub(lambda found: f"\\{found[0]}", text)
    return re.sub(r"&(?=#?\w+;)", "&amp;", plain).replace("<", "&lt;")


def latex(table: Table) -> str:
    """Return a tabular environment that needs the booktabs package only. The warning is its last row."""
    head, *body = [[escaped(text) for text in line] for line in table.lines()]
    out = [
        r"% needs \usepackage{booktabs}",
        *(f"% {escaped(' '.join(note.split()))}" for note in table.all_notes),
    ]
    align = "".join("l" if column.left else "r" for column in table.shown)
    out += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", f"{' & '.join(head)} \\\\"]
    out += [r"\midrule", *(f"{_row_prefix(line)}{' & '.join(line)} \\\\" for line in body)]
    if table.warning:
        out += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{escaped(table.warning)}}} \\"]
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""])


def _row_prefix(line: Sequence[str]) -> str:
    """Return {} to protect a first cell that \\\\ of the line before would read as its argument: [ or *."""
    return "{}" if line[0][:1] in ("[", "*") else ""


def escaped(text: str) -> str:
    """Escape text for LaTeX; consecutive hyphens are separated so that they are not joined into dashes."""
    return "".join("{}-" if c == "-" and text[i - 1 : i] == "-" else _glyph(c) for i, c in enumerate(text))


def _glyph(c: str) -> str:
    """Return a character in LaTeX, or its code point if pdflatex has no glyph for it."""
    base, *marks = unicodedata.normalize("NFD", c)
    plain = base.isascii() and base.isprintable() and all(mark in ACCENTS for mark in marks)
    return TEX.get(c, c if plain or c in PDFLATEX_GLYPHS else rf"\texttt{{U+{ord(c):04X}}}")


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return CSV in full precision, with an apostrophe before text that a spreadsheet would evaluate."""
    lines = [{key: _csv_cell(value) for key, value in record.items()} for record in records]
    return pd.DataFrame(lines).to_csv(index=False)


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def parquet(records: Sequence[Mapping[str, Any]], metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """Return a Parquet file of records with the same keys; a column of mixed types is stored as text."""
    columns = {key: _array([record[key] for record in records]) for key in (records[0] if records else ())}
    return packed(pa.table(columns).replace_schema_metadata(dict(metadata or {})))


def packed(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file."""
    stream = io.BytesIO()
    write_table(table, stream)
    return stream.getvalue()


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def stored(table: Table) -> bytes:
    """Return a Parquet file of the table's records, with the rest of the table in its metadata.

    That is the format of the columns, marks, texts, notes, title and warning.
    """
    extra = [
        [i, key, own.mark, own.text]
        for i, row in enumerate(table.rows)
        for key, own in row.items()
        if own.mark or own.text is not None
    ]
    look = {
        "version": VERSION,
        "columns": [_column(column) for column in table.columns],
        "entries": extra,
        "notes": list(table.notes),
        "title": table.title,
        "warning": table.warning,
    }
    return parquet(table.records(), {FORMATTING: json.dumps(look, ensure_ascii=True).encode()})


def _column(column: Column) -> dict[str, Any]:
    """Return a column's digits and non-default fields as JSON data, with null for infinity."""
    digits = [[None if math.isinf(below) else below, places] for below, places in column.digits]
    own = {f.name: getattr(column, f.name) for f in fields(Column)}
    return {k: v for k, v in own.items() if v != getattr(Column, k, None)} | {"digits": digits}


def read(path: Path) -> Table | None:
    """Read a table written by `stored`; None if the file is missing, not a table, or of another version."""
    if not path.is_file():
        return None
    try:
        found = read_table(path)
        look = json.loads((found.schema.metadata or {}).get(FORMATTING, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return None
    if look.get("version") != VERSION:
        return None
    columns = [_read_column(node) for node in look["columns"]]
    rows = [{column.key: entry(column, record) for column in columns} for record in found.to_pylist()]
    for i, key, mark, text in look["entries"]:
        rows[i][key] = replace(rows[i][key], mark=mark, text=text)
    return Table(columns, rows, look["notes"], look["title"], look["warning"])


def _read_column(node: Mapping[str, Any]) -> Column:
    digits = tuple((math.inf if below is None else below, places) for below, places in node["digits"])
    return Column(**{**node, "digits": digits})


def entry(column: Column, record: Mapping[str, Any]) -> Entry:
    """Return the entry of a column from a flat record."""
    ends = (f"{column.key}_{end}" for end in ("low", "high", "se"))
    low, high, error = map(record.get, ends) if column.spread else (None, None, None)
    return Entry(record.get(column.key), low, high, error)

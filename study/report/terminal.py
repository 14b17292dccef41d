"""Print tables and text on the terminal, for any width and encoding."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fovea.study.report.table import Entry, Table
from fovea.study.streams import plain, printable

WIDE = 150  # terminal columns that the full table of a study needs
STYLES = {"steps": "dim", "diagnosis": "dim"}  # role of a cell -> rich style of its row
Lines = Sequence[Sequence[str]]


def terminal(width: int = 200) -> Console:
    """Return a console on standard output. width: columns if standard output is not a terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout and sys.stdout.isatty() else width)


def print_table(table: Table, console: Console) -> None:
    """Print a table with its title and notes.

    A narrow terminal gets the brief table; if even that is too wide, row names go on separate lines.
    """
    styles, brief = [_style(row) for row in table.rows], console.width < WIDE
    lines = table.lines(brief)
    if table.title:
        print_text(f"\n{table.title}", console, "bold")
    if brief and sum(_widths(lines)) + 2 * len(lines[0]) > console.width:
        _print_rows(lines, console, styles)
    else:
        print_lines(lines, console, styles=styles)
    for note in table.all_notes:
        print_text(note, console, "dim")


def _style(row: Mapping[str, Entry]) -> str:
    if "failure" in row and row["failure"].value:
        return "red"
    return STYLES.get(row["role"].value, "") if "role" in row else ""


def _split_heading(name: str) -> str:
    """Split a heading into two lines at its bracket, or else at its first space if a word follows."""
    head, bracket, rest = name.partition("[")
    if bracket:
        return f"{head.rstrip()}\n[{rest}"
    first, _, second = name.partition(" ")
    return f"{first}\n{second}" if second[:1].isalnum() else name


def print_lines(lines: Lines, console: Console, left: int = 1, styles: Sequence[str] = ()) -> None:
    """Print aligned columns, of which the first is never wrapped.

    lines: the header, then the body.
    left: number of left-aligned columns; the rest is right-aligned.
    styles: rich style of each body line.
    """
    head, *body = lines
    grid = Grid(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        justify = "left" if i < left else "right"
        grid.add_column(_text(name, console), justify=justify, no_wrap=i == 0, overflow="fold")
    for line, style in zip(body, styles or [""] * len(body), strict=True):
        grid.add_row(*(_text(text, console) for text in line), style=style)
    console.print(grid)


def _text(text: str, console: Console) -> Text:
    """Return text without rich markup, already in the console's encoding so that widths are right."""
    return Text(printable(plain(text), console.encoding))


def _print_rows(lines: Lines, console: Console, styles: Sequence[str]) -> None:
    """Print each row below its name, which may be longer than a column."""
    head, *body = lines
    parts = [_split_heading(name).split("\n") for name in head[1:]]
    height = max(map(len, parts))
    heads = zip(*([""] * (height - len(part)) + part for part in parts), strict=True)
    texts = [[printable(text, console.encoding) for text in row] for row in (*heads, *(r[1:] for r in body))]
    widths = _widths(texts)

    def aligned(row: Sequence[str]) -> str:
        padded = (" " * (width - cell_len(text)) + text for text, width in zip(row, widths, strict=True))
        return "  ".join(["", *padded])

    aligned_lines = list(map(aligned, texts))
    print_text("\n".join(aligned_lines[:height]), console, "bold")
    for row, text, style in zip(body, aligned_lines[height:], styles, strict=True):
        print_text(f"{row[0]}\n{text}", console, style)


def _widths(lines: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def print_text(text: str, console: Console, style: str = "") -> None:
    """Print one paragraph literally, without interpreting rich markup."""
    console.print(_text(text, console), style=style, highlight=False, soft_wrap=True)
